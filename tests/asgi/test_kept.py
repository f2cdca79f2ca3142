"""Nothing of a request or of a session is kept after its end."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from support.client import open_request
from support.polling import eventually
from support.server import RecordingApp, uvicorn_in_loop
from websockets.asyncio.client import connect

from graceful_asgi import DrainPolicy, GracefulMiddleware
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._core.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

CLIENTS = 50


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # uvicorn's


def alive(others: Sequence[Work] = ()) -> list[Work]:
    """Return the pieces of work that anything keeps, garbage in circles and *others* left out."""
    gc.collect()
    known = set(map(id, others))
    kept = [each for each in gc.get_objects() if isinstance(each, Work)]
    return [each for each in kept if id(each) not in known]


@pytest.mark.parametrize("drained", [False, True], ids=["while serving", "through a drain"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_nothing_is_kept_of_what_has_ended(http: str, drained: bool) -> None:
    """Answered, gone in the middle of it, and a WebSocket: their connections stay, or go."""
    others = alive()  # of tests before this one
    runner = DrainRunner(DrainPolicy(lame_duck_period=3600))
    app: Any = RecordingApp()
    graceful = GracefulMiddleware(app, drainer=as_drainer(runner))
    async with uvicorn_in_loop(graceful, http=http) as (server, port):
        held = [await open_request(port, "/hold") for _ in range(CLIENTS)]
        sessions = [await connect(f"ws://127.0.0.1:{port}") for _ in range(5)]
        await eventually(lambda: len(runner.in_flight) == CLIENTS + 5)
        assert len(alive(others)) == CLIENTS + 5
        if drained:
            runner.begin("test")
        for _, writer in held[: CLIENTS // 2]:
            writer.transport.abort()
        app.release.set()
        for reader, _ in held[CLIENTS // 2 :]:
            await reader.readuntil(b"seen")
        for session in sessions:
            await session.close()
        await eventually(lambda: not server.server_state.tasks)
        if drained:
            runner.resume()
        reader, writer = await open_request(port)  # the last message of the others may be kept
        await reader.readuntil(b"seen")
        await eventually(lambda: not runner.in_flight)
        await asyncio.sleep(0)
        assert alive(others) == []
        for _, each in [*held, (reader, writer)]:
            each.close()
