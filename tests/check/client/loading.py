"""Loads in a hurry; and one on an adversary, with the sums checked on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.load import Load

if TYPE_CHECKING:
    from check.client.adversary import Adversary
    from graceful_asgi._check.result.counts import LoadResult


def plan(*, keep_alive: int = 0, fresh: int = 0, **options: Any) -> LoadPlan:
    """A load in a hurry: so many clients, and what is asked for besides."""
    hurry: dict[str, Any] = {
        "think_period": 0.001,
        "answer_period": 5.0,
        "single_after": 0.0,
        "connect_retry_interval": 0.001,
    }
    return LoadPlan(keep_alive_clients=keep_alive, fresh_clients=fresh, **{**hurry, **options})


async def measure(adversary: Adversary, wanted: LoadPlan) -> LoadResult:
    """Put the load on until the adversary has answered enough, and check that the sums agree."""
    async with adversary.serving():
        load = Load(wanted, port=adversary.port)
        result = await load.run(until=adversary.done.wait, within=10.0)
    assert adversary.done.is_set()
    total = result.total
    assert total.sent == adversary.requests
    assert total.served + total.rejected + total.wrong_total == adversary.served
    assert total.lost_total == adversary.dropped
    return result
