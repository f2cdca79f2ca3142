"""The sweep: which connection is closed when, and that none of them stops it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import select
import ssl
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamEnded
from h2.exceptions import ProtocolError
from support.certificate import certificate_options
from support.client import Client, open_request
from support.polling import PATIENCE, eventually
from support.records import written
from support.server import RecordingApp, uvicorn_in_loop

from graceful_asgi._servers import connections as module
from graceful_asgi._servers.connections import Connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from graceful_asgi.types import Receive, Scope, Send


pytestmark = pytest.mark.anyio

HTTP = ["h11", "httptools", "zttp"]
NONE = -10.0
"""Seconds of patience, less than the round trips of any connection here."""
FAR = 3600.0
"""Seconds: the grace period ends some other time."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> dict[module.State, float]:
    """Periods that never pass, to be shortened one by one. `NONE` is over at the first look."""
    periods = dict.fromkeys(module.PATIENCE, 3600.0)
    monkeypatch.setattr(module, "PATIENCE", periods)
    return periods


class Swept(Connections):
    """Counts its sweeps."""

    sweeps = 0

    async def sweep(self, time_left: float) -> None:
        await super().sweep(time_left)
        self.sweeps += 1

    async def often(self) -> None:
        """Wait until several sweeps more have looked at every connection."""
        enough = self.sweeps + 5
        await eventually(lambda: self.sweeps >= enough, "sweeps")


def connections_of(server: uvicorn.Server) -> Swept:
    return Swept(server)  # type: ignore[arg-type]  # it has more than our protocol names


@contextlib.asynccontextmanager
async def sweeping(server: uvicorn.Server) -> AsyncIterator[Swept]:
    """Sweep as a drain does, for the length of a block."""
    swept = connections_of(server)

    async def sweep() -> None:
        while True:
            await swept.sweep(FAR)
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(sweep())
    try:
        yield swept
    finally:
        assert not task.done(), task.exception()
        task.cancel()


async def is_closed(reader: asyncio.StreamReader, *, within: float = 0.3) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), within) == b""
    except TimeoutError:
        return False
    except asyncio.TimeoutError:  # not the built-in one before Python 3.11
        return False


async def in_the_kernel(connection: Any) -> None:
    """Wait until the kernel has bytes that the server, which has paused reading, has not read."""
    sock = connection.transport.get_extra_info("socket")
    await eventually(lambda: select.select([sock], [], [], 0)[0])


async def answered(reader: asyncio.StreamReader) -> None:
    await asyncio.wait_for(reader.readuntil(b"seen"), PATIENCE)


@pytest.mark.parametrize("http", HTTP)
async def test_a_new_connection_is_closed_when_its_period_has_passed(
    http: str, patience: dict[module.State, float]
) -> None:
    async with uvicorn_in_loop(RecordingApp(), http=http) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await eventually(lambda: server.server_state.connections)
        patience["idle"] = NONE
        async with sweeping(server):
            assert not await is_closed(reader)
            patience["new"] = 0.05
            assert await is_closed(reader, within=PATIENCE)
        writer.close()


async def test_time_in_which_the_loop_was_blocked_is_no_patience(
    patience: dict[module.State, float],
) -> None:
    """So a machine that has stood still goes on as its clients do."""
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await eventually(lambda: server.server_state.connections)
        patience["new"] = module.LONGEST_GAP + 0.1
        swept = connections_of(server)
        await swept.sweep(FAR)
        time.sleep(patience["new"] + 0.1)  # noqa: ASYNC251  # it is to block
        await swept.sweep(FAR)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await answered(reader)
        writer.close()


@pytest.mark.parametrize("http", HTTP)
async def test_an_idle_connection_is_closed_when_its_period_has_passed(
    http: str, patience: dict[module.State, float]
) -> None:
    async with uvicorn_in_loop(RecordingApp(), http=http) as (server, port):
        reader, writer = await open_request(port)
        await answered(reader)
        patience["new"] = NONE
        async with sweeping(server):
            assert not await is_closed(reader)
            patience["idle"] = 0.05
            assert await is_closed(reader, within=PATIENCE)
        writer.close()


@pytest.mark.parametrize("http", HTTP)
async def test_a_busy_connection_is_left_alone(
    http: str, patience: dict[module.State, float]
) -> None:
    app = RecordingApp()
    async with uvicorn_in_loop(app, http=http) as (server, port):
        reader, writer = await open_request(port, "/hold")
        await eventually(lambda: server.server_state.tasks)
        patience.update({"new": NONE, "idle": 0.2, "closing": NONE})
        async with sweeping(server):
            assert not await is_closed(reader)
            app.release.set()
            await answered(reader)
        writer.close()


@pytest.mark.parametrize("http", HTTP)
async def test_half_a_head_on_an_idle_connection_counts_as_nothing_yet(
    http: str, patience: dict[module.State, float]
) -> None:
    async with uvicorn_in_loop(RecordingApp(), http=http) as (server, port):
        reader, writer = await open_request(port)
        await answered(reader)
        writer.write(b"GET / HTTP/1.1\r\n")
        connection: Any
        (connection,) = server.server_state.connections
        await eventually(lambda: connection.timeout_keep_alive_task is None)
        patience["idle"] = NONE
        async with sweeping(server):
            assert not await is_closed(reader)
            writer.write(b"Host: localhost\r\n\r\n")
            await answered(reader)
        writer.close()


async def test_the_period_begins_anew_with_each_answer(
    patience: dict[module.State, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", NONE)
    patience["idle"] = 0.3
    now = 100.0
    loop = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        reader, writer = await open_request(port)
        await answered(reader)
        (connection,) = server.server_state.connections
        swept = connections_of(server)
        for _ in range(4):
            for _ in range(2):
                now += 0.2
                await swept.sweep(FAR)
            assert not connection.transport.is_closing()
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await answered(reader)
        for _ in range(3):
            now += 0.2
            await swept.sweep(FAR)
        assert await is_closed(reader, within=PATIENCE)
        writer.close()


async def test_a_client_that_goes_on_with_requests_is_given_time_for_the_next_one(
    patience: dict[module.State, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last answer came before the drain, and so did not say `Connection: close`."""
    monkeypatch.setattr(module, "PAUSE", FAR)
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        reader, writer = await open_request(port)
        await answered(reader)
        patience["idle"] = NONE
        async with sweeping(server):
            assert not await is_closed(reader)
            monkeypatch.setattr(module, "PAUSE", 0.05)
            assert await is_closed(reader, within=PATIENCE)
        writer.close()


async def test_that_time_begins_with_the_answer_however_long_it_took(
    patience: dict[module.State, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server answers late, and its client has not been idle meanwhile."""
    monkeypatch.setattr(module, "PAUSE", 0.6)
    app = RecordingApp()
    async with uvicorn_in_loop(app) as (server, port):
        reader, writer = await open_request(port, "/hold")
        await eventually(lambda: server.server_state.tasks)
        patience["idle"] = NONE
        async with sweeping(server):
            await asyncio.sleep(0.7)
            began = time.monotonic()
            app.release.set()
            await answered(reader)
            assert await is_closed(reader, within=PATIENCE)
            assert time.monotonic() - began >= 0.5
        writer.close()


async def test_unread_bytes_keep_an_idle_connection_open(
    patience: dict[module.State, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request is in the kernel: the loop has not got round to it."""
    monkeypatch.setattr(module, "PAUSE", NONE)
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        reader, writer = await open_request(port)
        await answered(reader)
        (connection,) = server.server_state.connections
        connection.transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await in_the_kernel(connection)
        patience["idle"] = NONE
        swept = connections_of(server)
        for _ in range(5):
            await swept.sweep(FAR)
        assert not connection.transport.is_closing()
        connection.transport.resume_reading()
        await answered(reader)
        writer.close()


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_connection_whose_shutdown_raises_does_not_stop_the_others(
    failing: int, patience: dict[module.State, float], caplog: pytest.LogCaptureFixture
) -> None:
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await eventually(lambda: len(server.server_state.connections) == 3)
        bad: Any = list(server.server_state.connections)[failing]

        def shutdown() -> None:
            raise RuntimeError("as asked")

        bad.shutdown = shutdown
        patience["new"] = NONE
        with caplog.at_level(logging.WARNING, "graceful_asgi"):
            await connections_of(server).sweep(FAR)
        for reader, writer in pairs:
            with contextlib.suppress(ConnectionError):
                assert await is_closed(reader, within=PATIENCE)
            writer.close()
        assert "as asked" in written(caplog).text
        await eventually(lambda: not server.server_state.connections)


async def test_a_connection_that_closes_for_too_long_is_aborted(
    patience: dict[module.State, float],
) -> None:
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await eventually(lambda: server.server_state.connections)
        (connection,) = server.server_state.connections

        class Closing:
            """As a TLS transport whose peer does not answer."""

            aborted = False

            def is_closing(self) -> bool:
                return True

            def get_write_buffer_size(self) -> int:
                return 0

            def get_extra_info(self, name: str) -> None:
                return None

            def abort(self) -> None:
                self.aborted = True

        transport, connection.transport = connection.transport, Closing()  # type: ignore[assignment]  # as TLS
        swept = connections_of(server)
        await swept.sweep(FAR)
        closing: Any = connection.transport
        assert not closing.aborted
        patience["closing"] = NONE
        await swept.sweep(FAR)
        assert closing.aborted
        connection.transport = transport
        writer.close()
        with contextlib.suppress(ConnectionError):
            await reader.read()


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_tls_connection_that_was_closed_twice_stops_neither_the_sweep_nor_the_drain(
    ws: str, tmp_path: Path, patience: dict[module.State, float]
) -> None:
    """uvicorn closes the connection of a WebSocket that it refuses, and again as its app returns.

    Then asyncio's transport can do nothing more, and is open until the client answers the close.
    """

    refused: list[Scope] = []

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})
        refused.append(scope)

    options = {"ws": ws, "lifespan": "off", **certificate_options(tmp_path)}
    async with uvicorn_in_loop(refuse, **options) as (server, port):
        context = ssl._create_unverified_context()
        client = await asyncio.to_thread(Client, port, tls=context)
        client.send(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await eventually(lambda: refused and not server.server_state.tasks)
        swept = connections_of(server)
        swept.longest_round_trip()
        assert swept.cut_answers() == 0
        await swept.sweep(FAR)
        assert swept
        patience["closing"] = NONE
        await swept.sweep(FAR)
        await eventually(lambda: not swept)  # uvloop aborts it
        swept.cut()
        client.close()
        await eventually(lambda: not server.server_state.connections)


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_websocket_is_left_alone_until_all_is_cut_and_then_closed_with_1012(
    ws: str, patience: dict[module.State, float]
) -> None:
    from websockets.asyncio.client import connect

    patience.update({"new": NONE, "idle": NONE})
    async with (
        uvicorn_in_loop(RecordingApp(), ws=ws) as (server, port),
        connect(f"ws://127.0.0.1:{port}/", proxy=None, close_timeout=1) as websocket,
        sweeping(server) as swept,
    ):
        await swept.often()
        await (await websocket.ping())
        assert swept.cut_answers() == 0
        swept.cut()
        await asyncio.wait_for(websocket.wait_closed(), PATIENCE)
        assert websocket.close_code == 1012


async def test_cutting_resets_every_connection_that_is_left(
    patience: dict[module.State, float],
) -> None:
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        reader, writer = await open_request(port, "/hold")
        await eventually(lambda: server.server_state.tasks)
        connections_of(server).cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        await eventually(lambda: not server.server_state.connections)


async def test_what_has_not_begun_to_answer_is_not_cut_with_the_answers(
    patience: dict[module.State, float],
) -> None:
    app = RecordingApp()
    async with uvicorn_in_loop(app) as (server, port):
        reader, writer = await open_request(port, "/hold")
        await eventually(lambda: server.server_state.tasks)
        assert connections_of(server).cut_answers() == 0
        app.release.set()
        await answered(reader)
        writer.close()


async def test_one_look_at_the_requests_is_enough_for_all_pipelines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look for each of three thousand pipelines would hold the loop for seconds."""
    looked_at: list[object] = []

    def request_of(task: asyncio.Task[None]) -> Any:
        looked_at.append(task)
        return original(task)

    original = module.request_of
    monkeypatch.setattr(module, "request_of", request_of)
    async with uvicorn_in_loop(RecordingApp()) as (server, port):
        clients = [await open_request(port, "/hold") for _ in range(5)]
        for _, writer in clients:
            writer.write(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connections: set[Any] = server.server_state.connections
        await eventually(lambda: sum(bool(each.pipeline) for each in connections) == len(clients))
        connections_of(server).cut_answers()
        assert len(looked_at) == len(clients)
        for _, writer in clients:
            writer.close()


# -- HTTP/2


class Http2Client:
    """One connection, by prior knowledge; what comes is told stream by stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.go_away: list[int] = []
        self.statuses: dict[int, str] = {}
        self.ended: set[int] = set()
        self._reader, self._writer = reader, writer
        self._http = H2Connection()
        self._http.initiate_connection()
        self._task = asyncio.ensure_future(self._read())

    @classmethod
    async def connect(cls, port: int) -> Http2Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def get(self, path: str) -> int:
        stream = self._http.get_next_available_stream_id()
        head = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "localhost"}
        self._http.send_headers(stream, list(head.items()), end_stream=True)
        self._writer.write(self._http.data_to_send())
        return stream

    async def answer(self, stream: int) -> str:
        await eventually(lambda: stream in self.ended)
        return self.statuses[stream]

    async def _read(self) -> None:
        while data := await self._reader.read(65536):
            for event in self._http.receive_data(data):
                if isinstance(event, ResponseReceived):
                    self.statuses[event.stream_id] = dict(event.headers)[b":status"].decode()
                elif isinstance(event, StreamEnded):
                    self.ended.add(event.stream_id)
                elif isinstance(event, ConnectionTerminated):
                    self.go_away.append(event.last_stream_id or 0)
            self._writer.write(self._http.data_to_send())

    async def closed(self) -> None:
        await asyncio.wait_for(self._task, PATIENCE)
        self._writer.close()


def http2_in_loop(app: RecordingApp) -> contextlib.AbstractAsyncContextManager[Any]:
    if "http2" not in inspect.signature(uvicorn.Config).parameters:
        pytest.skip("this uvicorn has no HTTP/2")
    return uvicorn_in_loop(app, http="zttp", http2=True)


async def test_a_new_stream_on_a_busy_connection_is_served_until_it_has_none(
    patience: dict[module.State, float],
) -> None:
    """uvicorn alone would answer it with 503, and so fail a client that nobody has told to go."""
    app = RecordingApp()
    async with http2_in_loop(app) as (server, port):
        client = await Http2Client.connect(port)
        slow = client.get("/hold")
        await eventually(lambda: server.server_state.tasks)
        patience["streams"] = NONE
        async with sweeping(server) as swept:
            for _ in range(3):
                assert await client.answer(client.get("/")) == "200"
                await swept.often()
            assert client.go_away == []
            app.release.set()
            assert await client.answer(slow) == "200"
            await client.closed()
        assert client.go_away == [7], "all four streams have been served"


async def test_an_idle_http_2_connection_is_closed_with_a_goaway(
    patience: dict[module.State, float],
) -> None:
    async with http2_in_loop(RecordingApp()) as (server, port):
        client = await Http2Client.connect(port)
        assert await client.answer(client.get("/")) == "200"
        async with sweeping(server) as swept:
            await swept.often()
            assert client.go_away == []
            patience["idle"] = 0.05
            await client.closed()
        assert client.go_away == [1]


async def test_an_http_2_connection_whose_client_pauses_is_closed_in_a_pause(
    patience: dict[module.State, float],
) -> None:
    """Each sweep finds it idle, and each time anew."""
    async with http2_in_loop(RecordingApp()) as (server, port):
        client = await Http2Client.connect(port)
        await eventually(lambda: server.server_state.connections)
        patience["streams"] = 0.3
        swept = Connections(server)
        streams = 0
        (connection,) = server.server_state.connections
        # Not until the client knows of it: it might read the GOAWAY one turn later.
        while not connection.transport.is_closing() and streams < 100:
            assert await client.answer(client.get("/")) == "200"
            streams += 1
            await swept.sweep(FAR)
            await asyncio.sleep(0.02)
        assert 1 < streams < 100
        await client.closed()
        assert client.go_away == [2 * streams - 1], "every stream has been served"


async def test_an_answer_that_an_http_2_client_reads_too_slowly_is_cut_and_counted(
    patience: dict[module.State, float],
) -> None:
    """The app has ended it; the rest waits for a window that the client does not open."""

    class LargeApp(RecordingApp):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return await super().__call__(scope, receive, send)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(100_000)})

    async with http2_in_loop(LargeApp()) as (server, port):
        client = await Http2Client.connect(port)
        stream = client.get("/")
        await eventually(lambda: stream in client.statuses)
        (connection,) = server.server_state.connections
        if not hasattr(connection.conn, "has_pending_send"):
            pytest.skip("this zttp does not show what waits")
        await eventually(lambda: not connection.cycles)
        swept = Connections(server)
        assert swept.cut_answers() == 1
        with pytest.raises(ConnectionResetError):
            await client.closed()
        assert stream not in client.ended


async def test_a_client_in_a_pause_is_told_to_go_elsewhere_as_well(
    patience: dict[module.State, float],
) -> None:
    async with http2_in_loop(RecordingApp()) as (server, port):
        client = await Http2Client.connect(port)
        assert await client.answer(client.get("/")) == "200"
        await Connections(server).sweep(module.GO_AWAY_PERIOD)
        await eventually(lambda: client.go_away == [2**31 - 1])
        (connection,) = server.server_state.connections
        assert not connection.transport.is_closing()
        client._writer.close()


async def test_a_request_that_the_kernel_has_keeps_an_http_2_connection_open(
    patience: dict[module.State, float],
) -> None:
    async with http2_in_loop(RecordingApp()) as (server, port):
        client = await Http2Client.connect(port)
        assert await client.answer(client.get("/")) == "200"
        (connection,) = server.server_state.connections
        connection.transport.pause_reading()
        patience["streams"] = NONE
        next_one = client.get("/")
        await in_the_kernel(connection)
        await Connections(server).sweep(FAR)
        assert not connection.transport.is_closing()
        connection.transport.resume_reading()
        assert await client.answer(next_one) == "200"
        await client.closed()
        assert client.go_away == [next_one]


async def test_clients_are_told_to_go_elsewhere_before_the_grace_period_ends(
    patience: dict[module.State, float],
) -> None:
    """A stream that is open, or under way, is served all the same: that is what the number says."""
    app = RecordingApp()
    async with http2_in_loop(app) as (server, port):
        client = await Http2Client.connect(port)
        client.get("/hold")
        await eventually(lambda: server.server_state.tasks)
        swept = Connections(server)
        await swept.sweep(module.GO_AWAY_PERIOD + 1)
        await swept.sweep(module.GO_AWAY_PERIOD)
        await swept.sweep(module.GO_AWAY_PERIOD - 0.1)
        await eventually(lambda: client.go_away)
        assert client.go_away == [2**31 - 1]
        (connection,) = server.server_state.connections
        assert not connection.transport.is_closing()
        app.release.set()
        await eventually(lambda: not connection.cycles)
        with pytest.raises(ProtocolError):  # `h2` gives its open streams up; others read on
            await client.closed()
        client._writer.close()
