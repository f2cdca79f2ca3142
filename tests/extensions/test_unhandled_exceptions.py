"""Exceptions that stop a server: those that nobody handles, and of those only an app's own."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import uvloop
from support.asgi import FakeAdapter, answer, serving, with_lifespan
from support.polling import eventually

from graceful_asgi import DrainPolicy, GracefulMiddleware, Phase
from graceful_asgi._core.drainer import runner_of
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._core.server_adapter import StoppableServer
from graceful_asgi._extensions.registry import start_extensions
from graceful_asgi._extensions.unhandled_exceptions import (
    LONGEST,
    UnhandledExceptions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLICY = DrainPolicy(drain_on_unhandled_exception=True, lame_duck_period=0, grace_period=0)


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
    return "asyncio", {"loop_factory": factory}


class Boom(Exception):
    pass


class Stoppable(StoppableServer):
    """A server that may be stopped, and the handlers that an app has had before."""

    def __init__(self) -> None:
        self.drainer = DrainRunner(POLICY)
        self.drainer.notifier.server_events.append(self)
        self.by_the_apps_own: list[object] = []
        self.extension = UnhandledExceptions(self.drainer)

    def stop(self, reason: str, *, lame_duck: bool = True, failed: bool = False) -> None:
        self.drainer.stop(reason, lame_duck=lame_duck, failed=failed)

    @property
    def reason(self) -> str:
        return self.drainer.state.reason if self.drainer.state.stopping else ""


@pytest.fixture
def former() -> Iterator[list[object]]:
    """Exceptions of threads, as the hook that was there before got them."""
    caught: list[object] = []
    before = threading.excepthook
    threading.excepthook = lambda args: caught.append(args.exc_value)
    yield caught
    threading.excepthook = before


@pytest.fixture
async def server(former: list[object]) -> Any:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: former.append(context.get("exception")))
    server = Stoppable()
    yield server
    server.extension.closed()


async def fails(exc: BaseException) -> None:
    raise exc


def raises(exc: BaseException) -> Callable[..., None]:
    def callback(*args: object) -> None:
        raise exc

    return callback


@pytest.mark.anyio
async def test_a_task_that_nobody_waits_for(server: Stoppable, former: list[object]) -> None:
    exc = Boom("in a task")
    task = asyncio.ensure_future(fails(exc))
    await asyncio.wait([task])
    del task
    await anyio.lowlevel.checkpoint()
    assert server.reason == "unhandled exception: Boom('in a task')"
    assert server.drainer.report().failed
    assert server.drainer.report().exit_code == 1
    assert former == [exc], "the former hook is called, too"


@pytest.mark.anyio
async def test_a_callback_of_the_loop(server: Stoppable, former: list[object]) -> None:
    asyncio.get_running_loop().call_soon(raises(Boom("in a callback")))
    await eventually(lambda: "Boom('in a callback')" in server.reason)
    assert len(former) == 1


@pytest.mark.anyio
async def test_a_task_that_is_held_by_the_callback_that_asks_for_its_result(
    server: Stoppable,
) -> None:
    task = asyncio.ensure_future(fails(Boom("held")))
    task.add_done_callback(asyncio.Task.result)
    await eventually(lambda: "Boom('held')" in server.reason)
    assert task.done()


def in_a_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.mark.anyio
async def test_a_thread(server: Stoppable, former: list[object]) -> None:
    exc = Boom("in a thread")
    in_a_thread(raises(exc))
    assert "Boom('in a thread')" in server.reason
    assert former == [exc]


@pytest.mark.parametrize(
    "exc", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr
)
@pytest.mark.anyio
async def test_what_is_no_error_stops_nothing(server: Stoppable, exc: BaseException) -> None:
    in_a_thread(raises(exc))
    if isinstance(exc, asyncio.CancelledError):
        asyncio.get_running_loop().call_soon(raises(exc))
    await asyncio.sleep(0)  # the callback is called before this task goes on
    assert not server.reason


class Bad(asyncio.Protocol):
    """A protocol that fails at each of its turns."""

    lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raise Boom("connection_made")

    def data_received(self, data: bytes) -> None:
        raise Boom("data_received")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        raise Boom("connection_lost")


class Worse(Bad):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass


@pytest.mark.parametrize("protocol", [Bad, Worse])
@pytest.mark.anyio
async def test_a_connection_stops_nothing(
    server: Stoppable, former: list[object], protocol: type[Bad]
) -> None:
    loop = asyncio.get_running_loop()
    if protocol is Bad and not isinstance(loop, asyncio.BaseEventLoop):
        return  # uvloop leaves such a transport open
    made: list[Bad] = []

    def make() -> Bad:
        made.append(protocol())
        return made[-1]

    listening = await loop.create_server(make, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    _, writer = await asyncio.open_connection(host, port)
    writer.write(b"data")
    writer.close()
    await eventually(lambda: former and made[0].lost, "the loop has told of it")
    listening.close()
    assert not server.reason


@pytest.mark.anyio
async def test_a_future_that_is_no_task_stops_nothing(
    server: Stoppable, former: list[object]
) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(Boom())
    del future
    await anyio.lowlevel.checkpoint()
    assert len(former) == 1
    assert not server.reason


@pytest.mark.anyio
async def test_closed_it_has_left_everything_as_it_was(
    server: Stoppable, former: list[object]
) -> None:
    server.extension.closed()
    in_a_thread(raises(Boom()))
    asyncio.get_running_loop().call_soon(raises(Boom()))
    await eventually(lambda: len(former) == 2)
    assert not server.reason


@pytest.mark.anyio
async def test_closed_it_leaves_alone_what_came_after_it(server: Stoppable) -> None:
    later: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: later.append(context))
    threading.excepthook = later.append
    server.extension.closed()
    in_a_thread(raises(Boom()))
    asyncio.get_running_loop().call_soon(raises(Boom()))
    await eventually(lambda: len(later) == 2)


@pytest.mark.anyio
async def test_an_exception_during_a_stop_changes_nothing(server: Stoppable) -> None:
    server.drainer.stop("SIGTERM")
    in_a_thread(raises(Boom()))
    assert server.drainer.state.reason == "SIGTERM"
    assert server.drainer.report().exit_code == 0


@pytest.mark.anyio
async def test_an_exception_after_a_begin_is_the_stop_that_it_waits_for(server: Stoppable) -> None:
    server.drainer.begin("preStop")
    in_a_thread(raises(Boom()))
    await server.drainer.drain(FakeAdapter(server.drainer))
    report = server.drainer.finish()
    assert (report.reason, report.failed, report.exit_code) == ("preStop", True, 1)


class Unspeakable(Exception):
    def __repr__(self) -> str:
        raise Boom


@pytest.mark.parametrize(
    "exc",
    [Unspeakable(), Boom("x" * 1000), Boom("a\x1b[31m\nb")],
    ids=["without a repr", "long", "control codes"],
)
@pytest.mark.anyio
async def test_the_reason_fits_into_a_line_whatever_the_exception(
    server: Stoppable, exc: Exception
) -> None:
    in_a_thread(raises(exc))
    assert server.reason.isprintable()
    assert type(exc).__name__ in server.reason
    assert len(server.reason) < LONGEST + 50


@pytest.mark.anyio
async def test_it_is_off_unless_the_policy_says_so() -> None:
    before = threading.excepthook
    await start_extensions(DrainRunner(DrainPolicy()))
    assert threading.excepthook is before


@pytest.mark.anyio
async def test_a_server_that_cannot_be_stopped_from_here_is_drained_and_told_of(
    caplog: pytest.LogCaptureFixture, former: list[object]
) -> None:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    middleware = GracefulMiddleware(with_lifespan(answer), policy=POLICY)
    async with serving(middleware) as server:
        in_a_thread(raises(Boom("passive")))
        await middleware.drainer.wait_begun()
        assert (await server.get()).status == 200
        assert not runner_of(middleware.drainer).state.stopping
        await server.shut_down()
    assert middleware.drainer.phase is Phase.STOPPED
    assert middleware.drainer.report().reason == "unhandled exception: Boom('passive')"
    assert "an app cannot stop this server" in caplog.text
    in_a_thread(raises(Boom()))
    assert len(former) == 2, "with the server gone nobody else listens"


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_default_handler_is_called_where_there_was_none(
    caplog: pytest.LogCaptureFixture, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        server = Stoppable()
        asyncio.get_running_loop().call_soon(raises(Boom("told")))
        await eventually(lambda: "told" in server.reason)
        server.extension.closed()

    loop = make_loop()
    loop.run_until_complete(main())
    loop.close()
    assert "Exception in callback" in caplog.text
    assert loop.get_exception_handler() is None


def test_without_a_loop_exceptions_of_threads_stop_the_server(former: list[object]) -> None:
    drainer = DrainRunner(POLICY)
    extension = UnhandledExceptions(drainer)
    in_a_thread(raises(Boom("no loop")))
    extension.closed()
    assert "no loop" in drainer.state.reason
