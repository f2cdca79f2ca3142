"""Nothing is lost: every request written on an established connection gets a complete answer."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import anyio
import pytest
from support.trial import detail, run_trial

from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.result.verdict import Trial, judge

from .loaded import loaded

if TYPE_CHECKING:
    from pathlib import Path

PLAN = LoadPlan(
    keep_alive_clients=30,
    fresh_clients=15,
    think_period=0.01,
    slow_path="/slow?s=1",
    stream_path="/stream?n=10",
    single_after=0.3,
)


def trial(directory: Path, *, loop: str, lame_duck: float, number: int) -> Trial:
    options = ("--loop", loop, "--no-access-log", "--port", "{port}")
    server = loaded(directory, ["uvicorn", "e2e.app:app", *options], lame_duck=lame_duck)

    async def run() -> Trial:
        return await run_trial(
            server, PLAN, answers=60, signal_after=0.6, exit_period=30, number=number
        )

    return anyio.run(run)


@pytest.mark.parametrize(
    ("loop", "lame_duck", "number"),
    [
        pytest.param("asyncio", 1.0, signal.SIGTERM, id="asyncio, SIGTERM"),
        pytest.param("uvloop", 1.0, signal.SIGTERM, id="uvloop, SIGTERM"),
        pytest.param("asyncio", 0.0, signal.SIGINT, id="asyncio, no lame duck, SIGINT"),
        pytest.param("uvloop", 0.0, signal.SIGINT, id="uvloop, no lame duck, SIGINT"),
    ],
)
def test_no_request_is_lost_under_load(
    tmp_path: Path, loop: str, lame_duck: float, number: int
) -> None:
    verdict = judge(
        [trial(tmp_path, loop=loop, lame_duck=lame_duck, number=number) for _ in range(2)]
    )
    assert verdict.clean, verdict.as_dict()
    assert verdict.load.before.served > 100
    after = verdict.load.after.served
    # Without a lame duck it is the faster of the two that decides how many are still served.
    assert (after if lame_duck else after + verdict.load.refused) > 20
    assert detail(verdict, "slow request") == "200 complete"
    assert detail(verdict, "streaming download") == "200 complete"
    assert verdict.exit_code == 0
