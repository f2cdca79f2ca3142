"""The server is found in every way of running it, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from support.client import get_in_loop
from support.polling import PATIENCE, eventually
from support.ports import listening_socket
from support.server import RecordingApp, uvicorn_config, uvicorn_in_loop

import graceful_asgi
from graceful_asgi._servers.finder import find_server

if TYPE_CHECKING:
    from graceful_asgi.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


class Subclass(uvicorn.Server):
    """Of a program's own."""


@pytest.mark.parametrize("lifespan", ["on", "off"])
@pytest.mark.parametrize("make", [uvicorn.Server, Subclass])
async def test_the_server_is_found_from_its_lifespan_and_from_a_request(
    lifespan: str, make: type[uvicorn.Server]
) -> None:
    app = RecordingApp(find_server)
    async with uvicorn_in_loop(app, make=make, lifespan=lifespan) as (server, port):
        await get_in_loop(port)
    scopes = ["lifespan", "http"] if lifespan == "on" else ["http"]
    assert app.seen == [(kind, server) for kind in scopes]


async def test_it_is_found_where_the_signals_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda signum: signal.SIG_DFL)
    app = RecordingApp(find_server)
    async with uvicorn_in_loop(app) as (server, port):
        await get_in_loop(port)
    assert app.seen == [("lifespan", server), ("http", server)]


async def test_it_is_found_under_trace_logging() -> None:
    """Trace logging wraps the app, `receive` and `send`."""
    app = RecordingApp(find_server)
    async with uvicorn_in_loop(app, log_level=5) as (server, port):
        await get_in_loop(port)
    assert app.seen == [("lifespan", server), ("http", server)]


async def test_it_is_found_inside_of_gather() -> None:
    app = RecordingApp(find_server)
    server, listener = uvicorn.Server(uvicorn_config(app)), listening_socket()

    async def stop() -> None:
        await eventually(lambda: server.started)
        await get_in_loop(listener.getsockname()[1])
        server.should_exit = True

    await asyncio.gather(server.serve([listener]), stop())
    assert app.seen == [("lifespan", server), ("http", server)]


@pytest.mark.parametrize("lifespan", ["on", "off"])
async def test_of_two_servers_in_one_loop_each_scope_finds_its_own(lifespan: str) -> None:
    first_app, second_app = RecordingApp(find_server), RecordingApp(find_server)
    async with (
        uvicorn_in_loop(first_app, lifespan=lifespan) as (first, first_port),
        uvicorn_in_loop(second_app, lifespan=lifespan) as (second, second_port),
    ):
        await get_in_loop(second_port)
        await get_in_loop(first_port)
    assert {found for _, found in first_app.seen} == {first}
    assert {found for _, found in second_app.seen} == {second}


async def test_of_two_servers_with_one_app_each_scope_finds_its_own() -> None:
    app = RecordingApp(find_server)
    async with (
        uvicorn_in_loop(app) as (first, first_port),
        uvicorn_in_loop(app) as (second, second_port),
    ):
        await get_in_loop(second_port)
        await get_in_loop(first_port)
    assert [found for _, found in app.seen] == [first, second, second, first]


async def test_a_request_that_a_middleware_moves_to_another_task_finds_the_only_server() -> None:
    inner = RecordingApp(find_server)

    async def moves(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.ensure_future(inner(scope, receive, send))

    async with uvicorn_in_loop(moves, lifespan="off") as (server, port):
        await get_in_loop(port)
    assert inner.seen == [("http", server)]


def test_it_is_found_in_a_thread() -> None:
    """Signals are the main thread's: there the handler says nothing."""
    seen: list[object] = []

    class Found(uvicorn.Server):
        async def on_tick(self, counter: int) -> bool:
            return True

    def look(scope: Scope) -> None:
        seen.append(find_server(scope))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        look(scope)
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    server = Found(uvicorn_config(app, port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert seen == [server]


async def test_nothing_is_found_where_no_server_is() -> None:
    assert find_server({"type": "lifespan", "state": {}}) is None
    assert find_server({"type": "http", "state": {}}) is None


async def test_an_object_that_only_looks_like_a_server_is_none() -> None:
    class Server:
        def __init__(self) -> None:
            self.found: object = self

        async def serve(self) -> None:
            self.found = find_server({"type": "lifespan", "state": {}})

    impostor = Server()
    await asyncio.ensure_future(impostor.serve())
    assert impostor.found is None


async def test_a_server_that_is_not_running_in_this_loop_is_not_found() -> None:
    server = uvicorn.Server(uvicorn_config(RecordingApp()))
    assert find_server({"type": "http"}) is None
    assert not server.started


def test_uvicorn_is_never_imported_to_find_it() -> None:
    source = (
        "import asyncio, sys\n"
        "from graceful_asgi import GracefulMiddleware\n"
        "from graceful_asgi._servers.finder import find_server\n"
        "async def main(): return find_server({'type': 'lifespan', 'state': {}})\n"
        "assert asyncio.run(main()) is None\n"
        "assert not [name for name in sys.modules if name.startswith('uvicorn')]\n"
    )
    root = Path(graceful_asgi.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
