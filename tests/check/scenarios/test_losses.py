"""The count is exact: servers that drop k requests by construction are found to have dropped k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from support.polling import PATIENCE, eventually

from check.client.adversary import (
    CUT_CHUNKED,
    CUT_HEAD,
    CUT_LENGTH,
    NO_HTTP,
    Adversary,
    Request,
    first,
)
from check.client.loading import measure, plan
from graceful_asgi._check.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from graceful_asgi._check.client.plan import LoadPlan
    from graceful_asgi._check.result.counts import LoadResult

pytestmark = pytest.mark.anyio

DROPPED = 7


async def lost_by(
    misbehave: Callable[[Request], None],
    wanted: LoadPlan,
    *,
    when: Callable[[Request], bool] = lambda request: True,
) -> LoadResult:
    return await measure(Adversary(first(DROPPED, misbehave, when=when), enough=40), wanted)


async def test_a_reset_on_a_reused_connection_is_lost_on_reuse() -> None:
    result = await lost_by(
        Request.reset, plan(keep_alive=3), when=lambda request: request.number_on_connection > 1
    )
    assert result.before.lost == {"reset on reuse": DROPPED}
    assert result.before.lost_on_reuse == DROPPED


async def test_a_reset_on_the_first_request_of_a_connection_is_lost_on_fresh() -> None:
    result = await lost_by(Request.reset, plan(fresh=3))
    assert result.before.lost == {"reset on fresh": DROPPED}
    assert result.before.lost_on_reuse == 0


async def test_a_keep_alive_clients_first_request_is_on_a_fresh_connection() -> None:
    result = await lost_by(
        Request.reset, plan(keep_alive=3), when=lambda request: request.number_on_connection == 1
    )
    assert result.before.lost == {"reset on fresh": DROPPED}


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_the_end_of_the_stream_without_an_answer_is_an_empty_reply(
    keep_alive: bool,
) -> None:
    clients = plan(keep_alive=3) if keep_alive else plan(fresh=3)
    number = 2 if keep_alive else 1
    result = await lost_by(
        Request.end, clients, when=lambda request: request.number_on_connection == number
    )
    assert result.before.lost == {"empty reply": DROPPED}
    assert result.before.lost_on_reuse == (DROPPED if keep_alive else 0)


@pytest.mark.parametrize("cut", [CUT_LENGTH, CUT_CHUNKED, CUT_HEAD])
@pytest.mark.parametrize("ending", [Request.end, Request.reset])
async def test_an_answer_that_begins_and_does_not_end_is_a_cut_body(
    cut: bytes, ending: Callable[[Request, bytes], None]
) -> None:
    result = await lost_by(lambda request: ending(request, cut), plan(keep_alive=2, fresh=2))
    assert result.before.lost == {"cut body": DROPPED}


# As many clients as requests that are dropped: these are the only ones in flight while time passes,
# and all others have as long for their answers, however slow the machine is.


async def test_a_request_that_is_never_answered_is_a_timeout() -> None:
    result = await lost_by(lambda request: None, plan(fresh=DROPPED, answer_period=1.5))
    assert result.before.lost == {"timeout": DROPPED}


async def test_an_answer_that_stalls_half_way_is_a_timeout() -> None:
    result = await lost_by(
        lambda request: request.answer(CUT_LENGTH), plan(keep_alive=DROPPED, answer_period=1.5)
    )
    assert result.before.lost == {"timeout": DROPPED}


async def test_an_answer_that_is_not_http_is_a_bad_reply() -> None:
    result = await lost_by(lambda request: request.answer(NO_HTTP), plan(keep_alive=2, fresh=2))
    assert result.before.lost == {"bad reply": DROPPED}


async def test_what_is_unanswered_when_the_server_has_gone_is_lost() -> None:
    """The adversary holds every request: none can be anything but lost, and the load still ends."""

    async def hold(request: Request) -> bool:
        return False

    adversary = Adversary(hold)
    async with adversary.serving():
        load = Load(plan(keep_alive=3, fresh=2), port=adversary.port)
        gone = anyio.Event()

        async def server_exit() -> None:
            await eventually(lambda: load.statistics().in_flight == 5)
            gone.set()

        result = await load.run(until=server_exit, within=PATIENCE)
    assert gone.is_set()
    assert result.before.sent == 5
    assert result.before.lost == {"timeout": 5}
