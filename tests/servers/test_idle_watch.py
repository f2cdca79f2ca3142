"""The end of a drain is an event: no tick has to pass before the server that waits for it goes on.

Here a server has no tick from its shutdown on. So whatever wakes the drain is an event.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvicorn
from support.certificate import certificate_options
from support.client import open_request
from support.polling import eventually
from support.server import RecordingApp, uvicorn_in_loop
from websockets.asyncio.client import connect

from graceful_asgi import DrainPolicy, GracefulMiddleware, Phase, log
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._servers.uvicorn_adapter import HANDSHAKE_PERIOD

if TYPE_CHECKING:
    from pathlib import Path

    from graceful_asgi.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio

PATIENT = DrainPolicy(lame_duck_period=0, grace_period=3600)


class Tickless(uvicorn.Server):
    """A server whose `on_tick` never returns again once it has ended the main loop."""

    ended = False

    async def on_tick(self, counter: int) -> bool:
        if self.ended:
            await asyncio.Event().wait()
        self.ended = await super().on_tick(counter)
        return self.ended


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> DrainRunner:
    # A progress line wakes the drain, too.
    monkeypatch.setattr(log, "PROGRESS_PERIOD", 3600.0)
    return DrainRunner(PATIENT)


@pytest.fixture
def app() -> RecordingApp:
    return RecordingApp()


def graceful(app: ASGIApp, runner: DrainRunner) -> GracefulMiddleware:
    return GracefulMiddleware(app, drainer=as_drainer(runner))


async def drain(server: uvicorn.Server, runner: DrainRunner) -> None:
    """Make the server drain, and wait until its listener is closed and the drain waits."""
    listening = server.servers[0]
    server.should_exit = True
    await eventually(lambda: runner.phase is Phase.DRAINING and not listening.sockets)
    for _ in range(20):  # turns of the loop, in which the drain looks at what is left
        await asyncio.sleep(0)
    assert runner.phase is Phase.DRAINING


async def ends(runner: DrainRunner) -> None:
    """Wait for the end of the drain."""
    await eventually(lambda: runner.phase in (Phase.CLEANUP, Phase.STOPPED))
    assert runner.report().clean


async def test_a_drain_is_woken_by_the_end_of_the_listener_close(
    app: RecordingApp, runner: DrainRunner
) -> None:
    async with uvicorn_in_loop(graceful(app, runner), make=Tickless) as (server, _):
        server.should_exit = True
        await ends(runner)


@pytest.mark.parametrize("http", ["h11", "httptools", "zttp"])
@pytest.mark.parametrize("lifespan", ["on", "off"])
async def test_a_drain_is_woken_by_the_end_of_the_last_answer(
    app: RecordingApp, runner: DrainRunner, http: str, lifespan: str
) -> None:
    """Also where the server was found at its first request: nothing had to be put in place."""
    options = {"http": http, "lifespan": lifespan}
    async with uvicorn_in_loop(graceful(app, runner), make=Tickless, **options) as (server, port):
        reader, writer = await open_request(port, "/hold")
        await eventually(lambda: len(runner.in_flight))
        await drain(server, runner)
        app.release.set()
        assert (await reader.read()).endswith(b"seen")
        await ends(runner)
        writer.close()


async def test_a_drain_is_woken_as_the_last_of_several_clients_goes(
    app: RecordingApp, runner: DrainRunner
) -> None:
    """Their connections are idle, and nothing but a tick would close them."""
    async with uvicorn_in_loop(graceful(app, runner), make=Tickless) as (server, port):
        clients = [await open_request(port) for _ in range(3)]
        for reader, _ in clients:
            await reader.readuntil(b"seen")
        await drain(server, runner)
        for _, writer in clients:
            assert runner.phase is Phase.DRAINING
            writer.close()
            await writer.wait_closed()
        await ends(runner)


async def test_a_drain_is_woken_by_the_end_of_a_task_that_the_middleware_does_not_see(
    app: RecordingApp, runner: DrainRunner
) -> None:
    inner, finish = graceful(app, runner), asyncio.Event()

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)
        if scope["type"] == "http":
            await finish.wait()

    async with uvicorn_in_loop(outer, make=Tickless) as (server, port):
        reader, writer = await open_request(port)
        await reader.readuntil(b"seen")
        writer.close()
        await eventually(lambda: not server.server_state.connections)
        await drain(server, runner)
        finish.set()
        await ends(runner)


async def test_a_drain_is_woken_as_a_connection_that_became_a_websocket_ends(
    app: RecordingApp, runner: DrainRunner
) -> None:
    async with uvicorn_in_loop(graceful(app, runner), make=Tickless) as (server, port):
        async with connect(f"ws://127.0.0.1:{port}") as client:
            server.should_exit = True
            await client.wait_closed()
            assert client.close_code == 1012
        await ends(runner)


async def test_a_drain_is_woken_as_the_time_of_tls_handshakes_has_passed(
    app: RecordingApp, runner: DrainRunner, tmp_path: Path
) -> None:
    options = certificate_options(tmp_path)
    async with uvicorn_in_loop(graceful(app, runner), make=Tickless, **options) as (server, _):
        await drain(server, runner)
        await ends(runner)
        assert runner.report().elapsed >= HANDSHAKE_PERIOD
