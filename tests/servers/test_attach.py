"""Attaching: one hook per server, and passive mode, never a crash, where something is missing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
import uvicorn
from support.asgi import Call, answer, http_scope
from support.client import get_in_loop
from support.polling import eventually
from support.ports import listening_socket
from support.records import written
from support.server import RecordingApp, uvicorn_config, uvicorn_in_loop

from graceful_asgi import DrainPolicy, GracefulMiddleware, Phase
from graceful_asgi._core.drainer import as_drainer, runner_of
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._servers import attach
from graceful_asgi._servers.signals import HostProcess

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

    from graceful_asgi.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

# A machine that stands still must not meet the hard deadline: it would end pytest.
NOW = DrainPolicy(lame_duck_period=0, grace_period=60, cancel_period=60, cleanup_period=60)


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graceful_asgi")


@pytest.mark.parametrize("name", ["on_tick", "main_loop", "shutdown"])
async def test_a_server_without_a_method_is_left_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A method that is no coroutine function any more has another meaning as well."""
    hooks: list[object] = []

    class Moved(uvicorn.Server):
        def __getattribute__(self, wanted: str) -> Any:
            if wanted == name and looking:
                return lambda *args: None
            return super().__getattribute__(wanted)

    looking = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal looking
        looking = True
        try:
            hooks.append(await attach(DrainRunner(NOW), scope))
        finally:
            looking = False
        await RecordingApp()(scope, receive, send)

    async with uvicorn_in_loop(app, make=Moved) as (server, port):
        await get_in_loop(port)
    assert hooks == [None, None]
    assert f"passive, this version of uvicorn has no {name}" in written(caplog).text
    assert not hasattr(server, "_graceful_asgi_hook")


class OtherTick(uvicorn.Server):
    """A uvicorn of another day: `on_tick` works, and is no coroutine function any longer."""

    def on_tick(self, counter: int) -> Any:
        return super().on_tick(counter)


async def test_an_app_on_a_server_that_is_left_alone_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = RecordingApp()
    middleware = GracefulMiddleware(app, policy=NOW)
    async with uvicorn_in_loop(middleware, make=OtherTick) as (_, port):
        await get_in_loop(port)
    assert [kind for kind, _ in app.seen] == ["lifespan", "http"]
    assert written(caplog).text.count("passive") == 1


async def test_a_server_that_has_failed_to_start_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program may go on, and start another with the same app: that one's stop is not to set a
    deadline for the failed one, which nobody would lift, and it has one control socket."""
    monkeypatch.setenv("GRACEFUL_CONTROL_DIR", str(tmp_path / "control"))
    drainer = DrainRunner(replace(NOW, drain_on_unhandled_exception=True))
    hook = threading.excepthook

    async def no_database(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        assert list((tmp_path / "control").iterdir())
        assert drainer.server is not None
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    app = GracefulMiddleware(no_database, drainer=as_drainer(drainer))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", port=0))

    def start() -> None:
        with pytest.raises(SystemExit):
            asyncio.run(server.serve())

    await anyio.to_thread.run_sync(start)
    assert server.lifespan.should_exit
    assert (drainer.server, drainer.notifier.server_events) == (None, [])
    assert drainer.loop_monitor is None
    assert threading.excepthook is hook
    await eventually(lambda: not list((tmp_path / "control").iterdir()))
    async with uvicorn_in_loop(GracefulMiddleware(RecordingApp(), drainer=as_drainer(drainer))) as (
        _,
        port,
    ):
        await get_in_loop(port)
        assert drainer.server is not None


async def test_a_startup_that_is_given_up_leaves_the_drainer_to_another_server() -> None:
    drainer = DrainRunner(NOW)
    begun = asyncio.Event()

    async def hang(scope: Any, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(3600)

    app = GracefulMiddleware(RecordingApp(), drainer=as_drainer(drainer))
    async with uvicorn_in_loop(app):
        events = drainer.notifier.server_events
        assert len(events) == 1
        hanging = GracefulMiddleware(hang, drainer=as_drainer(drainer))
        other = asyncio.ensure_future(uvicorn.Server(uvicorn.Config(hanging, port=0)).serve())
        await begun.wait()
        assert len(events) == 2
        other.cancel()
        await asyncio.wait([other])
        process = HostProcess.current()
        await eventually(lambda: len(process.servers()) == 1)
        assert len(events) == 1


@pytest.mark.parametrize(
    ("way", "lifespan"),
    [
        ("serve() cancelled", "on"),
        ("shutdown()", "on"),
        ("shutdown()", "off"),
        ("shutdown() of a server that was started by hand", "on"),
    ],
)
async def test_a_stop_without_the_sockets_leaves_them_to_another_server(
    way: str, lifespan: str
) -> None:
    """uvicorn gives `shutdown` the sockets that `serve` has got. Other code may leave them out, and
    another process may have them, too: here a second server has the same open socket."""
    listener = listening_socket()
    other = listener.dup()
    drainer = DrainRunner(NOW)
    app = GracefulMiddleware(RecordingApp(), drainer=as_drainer(drainer))
    config = uvicorn_config(app, lifespan=lifespan)
    server, port = uvicorn.Server(config), listener.getsockname()[1]
    beside = uvicorn.Server(uvicorn_config(GracefulMiddleware(RecordingApp(), policy=NOW)))
    serve = serve_by_hand if way.endswith("by hand") else uvicorn.Server.serve
    serving = asyncio.ensure_future(serve(server, [listener]))
    tasks = [serving]
    try:
        await eventually(lambda: server.started)
        await get_in_loop(port)  # a server without a lifespan is hooked at its first request
        tasks.append(asyncio.ensure_future(beside.serve([other])))
        await eventually(lambda: beside.started)
        if way == "serve() cancelled":
            serving.cancel()
        else:
            await server.shutdown()
        await eventually(lambda: drainer.phase is Phase.STOPPED)
        await get_in_loop(port)
        await asyncio.wait([serving])
        await eventually(lambda: handling_server() is beside)
    finally:
        server.should_exit = beside.should_exit = True
        await asyncio.wait(tasks)
    assert handling_server() is None


def handling_server() -> object:
    """Return the server whose handler a SIGTERM calls."""
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


@pytest.mark.parametrize("way", ["should_exit", "serve() cancelled"])
@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_server_that_ends_leaves_the_signals_to_one_without_the_middleware_that_goes_on(
    way: str, *, goes_on: bool
) -> None:
    """The first server ends alone: from then on the process knows the handlers before it."""
    beside = uvicorn.Server(uvicorn_config(RecordingApp(), port=0))
    async with serving_until(way):
        pass
    serving = asyncio.ensure_future(beside.serve())
    try:
        await eventually(lambda: beside.started)
        async with serving_until(way):
            if not goes_on:
                beside.should_exit = True
                await serving
        assert handling_server() is (beside if goes_on else None)
    finally:
        beside.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def serving_until(way: str) -> AsyncIterator[None]:
    """Serve an app with the middleware for the length of a block, and end that by *way*."""
    app = GracefulMiddleware(RecordingApp(), policy=NOW)
    server = uvicorn.Server(uvicorn_config(app, port=0))
    serving = asyncio.ensure_future(server.serve())
    await eventually(lambda: server.started)
    yield
    if way == "serve() cancelled":
        serving.cancel()
    server.should_exit = True
    await asyncio.wait([serving])
    await asyncio.sleep(0)  # the turn in which the handlers are set


async def serve_by_hand(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=sockets)
    await server.main_loop()


async def test_a_program_may_do_something_else_between_startup_and_main_loop() -> None:
    """It calls what `serve()` calls. In between no task shows the server."""
    drainer = DrainRunner(NOW)
    config = uvicorn.Config(GracefulMiddleware(RecordingApp(), drainer=as_drainer(drainer)), port=0)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        monitor = drainer.loop_monitor
        assert monitor is not None
        for _ in range(3):
            monitor.expect()
            await eventually(lambda: monitor.seen, "a tick")
        assert drainer.server is not None
    finally:
        await server.shutdown()
    assert drainer.report().clean


@pytest.mark.parametrize("how", ["sends that it failed", "raises", "cannot listen"])
async def test_a_server_that_fails_to_start_takes_nothing_from_another_with_its_drainer(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRACEFUL_CONTROL_DIR", str(tmp_path / "control"))
    drainer = DrainRunner(replace(NOW, drain_on_unhandled_exception=True))
    before = threading.excepthook

    async def fails(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        if how == "raises":
            raise ValueError("no database")
        if how == "sends that it failed":
            return await send({"type": "lifespan.startup.failed", "message": "no database"})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def left() -> tuple[object, ...]:
        names = sorted(each.name for each in (tmp_path / "control").iterdir())
        return names, drainer.server, drainer.loop_monitor is None, threading.excepthook

    app = GracefulMiddleware(RecordingApp(), drainer=as_drainer(drainer))
    async with uvicorn_in_loop(app) as (_, port):
        expected = left()
        assert drainer.server is not None
        other = GracefulMiddleware(fails, drainer=as_drainer(drainer))
        config = uvicorn.Config(other, lifespan="on", port=port if how == "cannot listen" else 0)
        with contextlib.suppress(SystemExit):
            await uvicorn.Server(config).serve()
        await get_in_loop(port)
        assert drainer.notifier.servers() == [drainer.server]
        assert left() == expected
    assert drainer.notifier.server_events == []
    assert threading.excepthook is before


async def test_a_server_whose_loop_was_closed_at_its_exit_leaves_nothing_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app leaves its start by `sys.exit`, and the program runs and closes the loop itself."""
    monkeypatch.setenv("GRACEFUL_CONTROL_DIR", str(tmp_path / "control"))
    drainer = DrainRunner(NOW)

    async def exits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        sys.exit(3)

    def start() -> None:
        app = GracefulMiddleware(exits, drainer=as_drainer(drainer))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="on", port=0))
        loop = asyncio.new_event_loop()
        with pytest.raises(SystemExit):
            loop.run_until_complete(server.serve())
        loop.close()

    await anyio.to_thread.run_sync(start)
    app = GracefulMiddleware(RecordingApp(), drainer=as_drainer(drainer))
    async with uvicorn_in_loop(app) as (_, port):
        await get_in_loop(port)
        assert drainer.notifier.servers() == [drainer.server]
        await eventually(lambda: len(list((tmp_path / "control").iterdir())) == 1)


async def test_an_app_without_a_lifespan_has_one_control_socket_on_a_passive_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is found at the lifespan, at which the app raises, and again at a request. A
    program may also try again to start an app that raises."""
    monkeypatch.setenv("GRACEFUL_CONTROL_DIR", str(tmp_path / "control"))
    raised = ValueError("no lifespan here")

    async def no_lifespan(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise raised
        await answer(scope, receive, send)

    app = GracefulMiddleware(no_lifespan, policy=NOW)
    try:
        for _ in range(3):
            assert (await Call(app, {"type": "lifespan", "state": {}}).run()).error is raised
        assert (await Call(app, http_scope()).run()).status == 200
        await eventually(lambda: len(list((tmp_path / "control").iterdir())) == 1)
    finally:
        runner_of(app.drainer).notifier.server_closed()


async def test_servers_without_a_lifespan_leave_nothing_at_the_drainer_of_their_app() -> None:
    app = GracefulMiddleware(RecordingApp(), policy=NOW)
    for _ in range(2):
        async with uvicorn_in_loop(app, lifespan="off") as (_, port):
            await get_in_loop(port)
    notifier = runner_of(app.drainer).notifier
    assert (notifier.hooks, notifier.server_events) == ([], [])


async def test_a_server_is_hooked_once(caplog: pytest.LogCaptureFixture) -> None:
    app = GracefulMiddleware(GracefulMiddleware(RecordingApp(), policy=NOW), policy=NOW)
    async with uvicorn_in_loop(app) as (_, port):
        await get_in_loop(port)
        await get_in_loop(port)
    assert written(caplog).text.count("hooked uvicorn.server.Server") == 1


async def test_no_class_is_patched() -> None:
    names = ("shutdown", "main_loop", "on_tick", "handle_exit", "capture_signals")
    before = {name: vars(uvicorn.Server)[name] for name in names}
    async with uvicorn_in_loop(GracefulMiddleware(RecordingApp(), policy=NOW)) as (server, port):
        await get_in_loop(port)
        assert "shutdown" in vars(server)
        assert {name: vars(uvicorn.Server)[name] for name in names} == before
        assert "shutdown" not in vars(uvicorn.Server(server.config))


async def test_requests_count_from_the_ticks_of_the_server() -> None:
    """They do not ask the clock. So a new one may seem some hundredths of a second old."""
    drainer, ages = DrainRunner(NOW), list[float]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            oldest = drainer.statistics().oldest
            assert oldest is not None
            ages.append(oldest.age)
        await RecordingApp()(scope, receive, send)

    async with uvicorn_in_loop(GracefulMiddleware(app, drainer=as_drainer(drainer))) as (_, port):
        while len(ages) < 300 and max(ages, default=0) < 0.02:
            await get_in_loop(port)
    assert min(ages) >= 0
    assert max(ages) >= 0.02
