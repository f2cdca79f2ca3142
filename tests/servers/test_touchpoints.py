"""Every name of uvicorn's that the package touches, in the uvicorn that is installed.

One assertion per name, so that the name that has moved is the one that fails.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import signal
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from support.certificate import certificate_options
from support.client import open_request
from support.polling import PATIENCE, eventually
from support.server import LongPauses, RecordingApp, uvicorn_config, uvicorn_in_loop
from uvicorn.server import ServerState

from graceful_asgi._servers import touchpoints
from graceful_asgi._servers.pause import end_pause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

HTTP_1 = ["h11_impl:H11Protocol", "httptools_impl:HttpToolsProtocol", "zttp_impl:ZttpProtocol"]
HTTP_2 = "zttp_h2_impl:ZttpH2Protocol"
AUTO = "auto_zttp_impl:AutoZttpProtocol"
WEBSOCKETS = [
    "websockets_sansio_impl:WebSocketsSansIOProtocol",
    "wsproto_impl:WSProtocol",
]


def load(name: str, package: str = "http") -> Any:
    module, _, cls = name.partition(":")
    return getattr(importlib.import_module(f"uvicorn.protocols.{package}.{module}"), cls)


async def make(name: str, package: str = "http") -> Any:
    """An instance, as `config.http_protocol_class` is called for a connection that we accept."""
    loaded = uvicorn_config(RecordingApp())
    loaded.load()
    cls = load(name, package)
    return cls(
        config=loaded,
        server_state=ServerState(),
        app_state={},
        _loop=asyncio.get_running_loop(),
    )


@pytest.fixture
def server() -> uvicorn.Server:
    return uvicorn.Server(uvicorn_config("app:app"))


def names_of(protocol: type) -> Iterator[str]:
    yield from protocol.__annotations__
    yield from (
        name
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and name not in ("__init__", "__subclasshook__")
    )


# -- the server


async def test_nothing_is_missing() -> None:
    async with uvicorn_in_loop(RecordingApp()) as (running, _):
        server: Any = running
        assert touchpoints.missing(server) == []


@pytest.mark.parametrize("name", ["shutdown", "main_loop", "on_tick", "serve"])
async def test_the_server_has_the_coroutine_function(server: uvicorn.Server, name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(server, name))


@pytest.mark.parametrize("name", ["shutdown", "main_loop"])
async def test_the_server_looks_a_method_up_where_we_put_it(name: str) -> None:
    """On the instance, at the time of the call."""
    called = []

    class Watched(uvicorn.Server):
        pass

    async with uvicorn_in_loop(RecordingApp(), make=Watched) as (server, _):
        if name == "shutdown":
            original = server.shutdown

            async def shutdown(sockets: Any = None) -> None:
                called.append(sockets)
                await original(sockets)

            server.shutdown = shutdown  # type: ignore[method-assign]  # as the hook does
    if name == "main_loop":
        lone = uvicorn.Server(uvicorn_config(RecordingApp(), port=0))

        async def main_loop() -> None:
            called.append(None)

        lone.main_loop = main_loop  # type: ignore[method-assign]  # as the hook does
        await asyncio.wait_for(lone.serve(), PATIENCE)
    assert len(called) == 1


async def test_shutdown_takes_the_sockets_and_can_do_without(server: uvicorn.Server) -> None:
    parameters = inspect.signature(server.shutdown).parameters
    assert list(parameters) == ["sockets"]
    assert parameters["sockets"].default is None


async def test_on_tick_takes_a_counter_and_says_whether_to_exit(server: uvicorn.Server) -> None:
    assert list(inspect.signature(server.on_tick).parameters) == ["counter"]
    assert await server.on_tick(1) is False
    server.should_exit = True
    assert await server.on_tick(1) is True


async def test_a_pause_of_the_main_loop_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn looks at its flags once more then, and goes on."""
    monkeypatch.setattr(uvicorn.server, "asyncio", LongPauses())
    ticks: list[int] = []

    class Watched(uvicorn.Server):
        async def on_tick(self, counter: int) -> bool:
            ticks.append(counter)
            return await super().on_tick(counter)

    def has_looked(times: int) -> bool:
        return len(ticks) >= times

    server = Watched(uvicorn_config(RecordingApp(), port=0))
    task = asyncio.ensure_future(server.serve())
    for number in range(10):
        await eventually(partial(has_looked, number + 1), "a look at the flags")
        end_pause(task)
    await eventually(partial(has_looked, 11))
    monkeypatch.undo()
    server.should_exit = True
    end_pause(task)
    await task


async def test_main_loop_takes_nothing(server: uvicorn.Server) -> None:
    assert not inspect.signature(server.main_loop).parameters


@pytest.mark.parametrize("name", ["should_exit", "force_exit", "started"])
async def test_the_server_has_the_flag(server: uvicorn.Server, name: str) -> None:
    assert getattr(server, name) is False


async def test_the_server_state_has_connections_and_tasks(server: uvicorn.Server) -> None:
    assert server.server_state.connections == set()
    assert server.server_state.tasks == set()


async def test_a_running_server_has_servers_with_sockets_and_a_lifespan_with_state() -> None:
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        (running,) = server.servers
        assert [sock.getsockname()[1] for sock in running.sockets] == [port]
        assert isinstance(server.lifespan.state, dict)
        assert inspect.iscoroutinefunction(server.lifespan.shutdown)
        assert not inspect.signature(server.lifespan.shutdown).parameters


async def test_the_lifespans_state_reaches_the_lifespan_and_not_a_copy() -> None:
    """By this the finder tells two servers in one loop apart."""
    states: list[object] = []
    app = RecordingApp(lambda scope: states.append(scope.get("state")))
    async with uvicorn_in_loop(app) as (server, _):
        assert states[0] is server.lifespan.state


async def test_a_server_that_is_off_has_a_lifespan_all_the_same() -> None:
    async with uvicorn_in_loop(RecordingApp(), lifespan="off") as (server, _):
        assert server.lifespan.state == {}
        assert inspect.iscoroutinefunction(server.lifespan.shutdown)


@pytest.mark.parametrize(
    "name", ["http_protocol_class", "ws_protocol_class", "ssl", *touchpoints.Config.__annotations__]
)
async def test_the_loaded_configuration_has(name: str) -> None:
    loaded = uvicorn_config(RecordingApp())
    loaded.load()
    assert hasattr(loaded, name)


async def test_the_last_step_looks_at_what_there_is_when_it_runs() -> None:
    """Empty sets stand in for what has had its time: then it waits for nobody."""
    app = RecordingApp()
    async with uvicorn_in_loop(app) as (server, port):
        _, writer = await open_request(port, "/hold")
        await eventually(lambda: server.server_state.tasks)
        state = server.server_state
        kept = server.servers, state.connections, state.tasks
        server.servers, state.connections, state.tasks = [], set(), set()
        await asyncio.wait_for(server.shutdown(), PATIENCE)
        server.servers, state.connections, state.tasks = kept
        assert server.server_state.tasks
        assert server.servers[0].is_serving()
        server.shutdown = no_shutdown  # type: ignore[method-assign]  # it is shut down already
        server.servers[0].close()
        app.release.set()
        await eventually(lambda: not server.server_state.tasks)
        writer.close()


async def no_shutdown(sockets: object = None) -> None:
    pass


# -- signals


async def test_handle_exit_appends_to_captured_signals(server: uvicorn.Server) -> None:
    captured = []

    class Captured(list[int]):
        def append(self, signum: int, /) -> None:
            captured.append(signum)

    server._captured_signals = Captured()
    server.handle_exit(signal.SIGTERM, None)
    assert captured == [signal.SIGTERM]


async def test_handle_exit_sets_should_exit_and_forces_at_the_second_sigint(
    server: uvicorn.Server,
) -> None:
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


async def test_capture_signals_iterates_captured_signals_reversed(server: uvicorn.Server) -> None:
    """uvicorn raises these signals anew, after its handlers are gone: we end the process there."""
    asked = []

    class Captured(list[int]):
        def __reversed__(self) -> Iterator[int]:
            asked.append(signal.getsignal(signal.SIGTERM))
            return iter(())

    before = signal.getsignal(signal.SIGTERM)
    server._captured_signals = Captured([signal.SIGTERM])
    with server.capture_signals():
        handler = signal.getsignal(signal.SIGTERM)
        assert getattr(handler, "__self__", None) is server
    assert asked == [before]


# -- connections


@pytest.mark.parametrize("name", HTTP_1)
async def test_an_http_1_protocol_has_a_cycle_and_a_keep_alive_timer(name: str) -> None:
    connection = await make(name)
    assert connection.cycle is None
    assert connection.timeout_keep_alive_task is None
    assert connection.transport is None
    assert not inspect.signature(connection.shutdown).parameters
    assert not hasattr(connection, "cycles")


async def test_an_http_2_protocol_has_cycles() -> None:
    connection = await make(HTTP_2)
    assert connection.cycles == {}
    assert connection.transport is None
    assert not hasattr(connection, "cycle")
    assert not inspect.signature(connection.shutdown).parameters


async def test_an_http_2_protocol_calls_on_stream_closed_where_we_put_it() -> None:
    """On the instance, when its last stream has ended."""
    connection = await make(HTTP_2)
    called: list[bool] = []
    connection.on_stream_closed = lambda: called.append(True)
    connection.on_response_complete(1)
    assert called == [True]
    assert connection.timeout_keep_alive_task is None
    assert connection.conn.has_pending_send() is False


async def test_an_http_2_connection_goes_on_after_a_goaway_with_the_highest_stream() -> None:
    connection = await make(HTTP_2)
    connection.conn.initiate_connection()
    connection.conn.data_to_send()
    connection.conn.close(0, 2**31 - 1)
    length, go_away, connection_itself = b"\0\0\x08", b"\x07\0", bytes(4)
    highest, no_error = b"\x7f\xff\xff\xff", bytes(4)
    expected = length + go_away + connection_itself + highest + no_error
    assert connection.conn.data_to_send() == expected


async def test_a_protocol_that_has_yet_to_choose_can_shut_down() -> None:
    connection = await make(AUTO)
    assert connection.transport is None
    assert not inspect.signature(connection.shutdown).parameters


@pytest.mark.parametrize("name", WEBSOCKETS)
async def test_a_websocket_protocol_can_shut_down_and_is_no_http_protocol(name: str) -> None:
    connection = await make(name, "websockets")
    assert connection.transport is None
    assert not inspect.signature(connection.shutdown).parameters
    assert not hasattr(connection, "cycle")


@pytest.mark.parametrize("name", [*HTTP_1, HTTP_2])
@pytest.mark.parametrize("flag", sorted(touchpoints.Cycle.__annotations__))
async def test_a_cycle_has_the_flag(name: str, flag: str) -> None:
    module = importlib.import_module(f"uvicorn.protocols.http.{name.partition(':')[0]}")
    assert f"self.{flag} = " in inspect.getsource(module.RequestResponseCycle.__init__)


@pytest.mark.parametrize("http", ["h11", "httptools", "zttp"])
async def test_a_connection_closes_after_an_answer_whose_cycle_is_not_to_be_kept_alive(
    http: str,
) -> None:
    """Said in the middle of the answer: its header has promised to go on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"seen", "more_body": True})
        assert receive.__self__.keep_alive is True
        receive.__self__.keep_alive = False
        await send({"type": "http.response.body", "body": b""})

    async with uvicorn_in_loop(app, http=http) as (_, port):
        reader, writer = await open_request(port, "/")
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        assert answer.endswith(b"0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("http", ["h11", "httptools", "zttp"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_transport_calls_connection_lost_where_we_put_it(
    http: str, tls: bool, tmp_path: Path
) -> None:
    """On the instance, in the middle of its life. By then the class's own has emptied the set."""
    options: dict[str, Any] = certificate_options(tmp_path) if tls else {}
    async with uvicorn_in_loop(RecordingApp(), http=http, **options) as (server, port):
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting if tls else None)
        connections: set[Any] = server.server_state.connections
        await eventually(lambda: connections)
        (connection,) = connections
        uvicorns, left = connection.connection_lost, []

        def connection_lost(exc: Exception | None) -> None:
            uvicorns(exc)
            left.append(len(connections))

        connection.connection_lost = connection_lost
        writer.close()
        await eventually(lambda: left)
        assert left == [0]


@pytest.mark.parametrize("name", WEBSOCKETS)
async def test_a_websocket_protocol_calls_connection_lost_where_we_put_it(name: str) -> None:
    connection = await make(name, "websockets")
    connection.connection_lost = print  # slots would refuse it


@pytest.mark.parametrize("http", ["h11", "httptools", "zttp"])
async def test_what_a_connection_shows_of_its_request(http: str) -> None:
    """Under way, answered, answered and waiting for the next: by these a sweep tells them apart."""
    app = RecordingApp()
    async with uvicorn_in_loop(app, http=http) as (server, port):
        reader, writer = await open_request(port, "/hold")
        await eventually(lambda: server.server_state.tasks)
        connections: set[Any] = server.server_state.connections
        (connection,) = connections
        cycle = connection.cycle
        assert (cycle.response_started, cycle.response_complete) == (False, False)
        assert connection.timeout_keep_alive_task is None
        app.release.set()
        await reader.readuntil(b"seen")
        await eventually(lambda: connection.timeout_keep_alive_task)
        assert (cycle.response_started, cycle.response_complete) == (True, True)
        writer.write(b"GET / HTTP/1.1\r\n")
        await eventually(lambda: not connection.timeout_keep_alive_task)
        assert connection.cycle is cycle
        writer.close()


async def test_the_transport_has_what_we_use() -> None:
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        _, writer = await open_request(port, "/hold")
        await eventually(lambda: server.server_state.connections)
        (connection,) = server.server_state.connections
        transport = connection.transport
        for name in names_of(touchpoints.Transport):
            assert callable(getattr(transport, name)), name
        assert transport.get_extra_info("socket").fileno() >= 0
        assert transport.get_write_buffer_size() == 0
        writer.close()


async def test_a_websocket_is_told_by_the_configured_class() -> None:
    from websockets.asyncio.client import connect

    async with (
        uvicorn_in_loop(RecordingApp()) as (server, port),
        connect(f"ws://127.0.0.1:{port}/", proxy=None, close_timeout=1),
    ):
        (connection,) = server.server_state.connections
        ws_class = server.config.ws_protocol_class
        assert ws_class is not None
        assert isinstance(connection, ws_class)


async def test_requests_run_in_the_servers_tasks() -> None:
    """By this the finder tells a request's server among several."""
    tasks: list[object] = []
    app = RecordingApp(lambda scope: tasks.append(asyncio.current_task()))
    async with uvicorn_in_loop(app) as (server, port):
        _, writer = await open_request(port, "/hold")
        await eventually(lambda: len(tasks) == 2)
        assert server.server_state.tasks == {tasks[1]}
        writer.close()
