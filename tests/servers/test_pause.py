"""The pauses of uvicorn between two looks at its flags are ended by a stop, and no other sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvicorn.server
from support.client import get_in_loop
from support.polling import eventually
from support.server import HOUR, LongPauses, RecordingApp, uvicorn_in_loop

from graceful_asgi import DrainPolicy, GracefulMiddleware, Phase
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._servers.pause import end_pause

pytestmark = pytest.mark.anyio

NOW = DrainPolicy(lame_duck_period=0, grace_period=3600)


async def test_a_stop_waits_for_no_pause_of_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for that of the main loop nor for that of `shutdown`."""
    monkeypatch.setattr(uvicorn.server, "asyncio", LongPauses())
    runner, app = DrainRunner(NOW), RecordingApp()
    middleware = GracefulMiddleware(app, drainer=as_drainer(runner))
    async with uvicorn_in_loop(middleware) as (_, port):
        await get_in_loop(port)
        assert runner.server is not None
        runner.server.stop("test")
        await eventually(lambda: runner.phase is Phase.STOPPED)
    assert [kind for kind, _ in app.seen] == ["lifespan", "http"]


class OwnLoop(uvicorn.Server):
    """A server whose main loop waits in its own way."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110  # as uvicorn's own does
            await asyncio.sleep(HOUR)


@pytest.mark.parametrize("what", ["another task", "a loop of a subclass", "no task", "an end"])
async def test_another_sleep_is_not_ended(what: str) -> None:
    if what == "no task":
        end_pause(None)
        return
    if what == "a loop of a subclass":
        task = asyncio.ensure_future(OwnLoop(uvicorn.Config(RecordingApp())).main_loop())
    else:
        task = asyncio.ensure_future(asyncio.sleep(0 if what == "an end" else HOUR))
    for _ in range(5):
        await asyncio.sleep(0)
        end_pause(task)
    assert task.done() is (what == "an end")
    task.cancel()


async def test_a_pause_whose_time_has_come_in_the_same_turn_is_ended_once() -> None:
    """After a turn that was long, both are due: the loop has the timer's callback in hand."""
    config = uvicorn.Config(RecordingApp())
    config.load()
    server = uvicorn.Server(config)
    loop, failures = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    task = asyncio.ensure_future(server.main_loop())
    for _ in range(3):
        await asyncio.sleep(0)
    loop.call_later(0.05, end_pause, task)
    time.sleep(0.2)  # noqa: ASYNC251  # the long turn
    server.should_exit = True
    await task
    await asyncio.sleep(0)
    assert failures == []
