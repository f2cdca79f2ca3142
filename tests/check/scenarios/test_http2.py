"""HTTP/2: requests on busy connections, which are left when the server says so."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived
from support.polling import eventually
from support.ports import free_port

from check.client.loading import plan
from check.scenarios.staging import EXIT
from graceful_asgi._check.client.run import Run
from graceful_asgi._check.load import Load
from graceful_asgi._check.scenarios.http2 import Http2

if TYPE_CHECKING:
    from collections.abc import Callable

    from graceful_asgi._check.client.plan import LoadPlan
    from graceful_asgi._check.result.counts import LoadResult
    from graceful_asgi._check.result.finding import Finding

pytestmark = pytest.mark.anyio

CONNECTIONS = 3
STREAMS = 4


class Connection:
    """One connection, as the server has it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="ascii"))
        self.http.initiate_connection()
        self.open: list[int] = []
        self.fields: list[tuple[str, str]] = []
        """The headers of the last request."""

    def make_room(self, length: int, stream: int) -> None:
        """Give the client room for as many bytes more."""
        if not self.writer.is_closing():
            self.http.acknowledge_received_data(length, stream)
            self.writer.write(self.http.data_to_send())

    def answer(self, status: str = "200") -> None:
        """Answer the oldest request."""
        number = self.open.pop(0)
        self.http.send_headers(number, [(":status", status)])
        self.http.send_data(number, b"ok", end_stream=True)


Behave: TypeAlias = "Callable[[Connection], None]"


async def measure(
    before: Behave, after: Behave, wanted: LoadPlan | None = None
) -> tuple[Finding, LoadResult]:
    """Behave so at each request before and after the signal, at which the listener is closed.

    The run is over when all clients have been refused.
    """
    behave = before
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        connection = Connection(writer)
        with closing(writer):
            writer.write(connection.http.data_to_send())
            try:
                while data := await reader.read(4096):
                    for event in connection.http.receive_data(data):
                        if isinstance(event, RequestReceived):
                            requests += 1
                            connection.open.append(event.stream_id)
                            connection.fields = [
                                (str(name), str(value)) for name, value in event.headers
                            ]
                            behave(connection)
                        elif isinstance(event, DataReceived):
                            length, stream = event.flow_controlled_length, event.stream_id
                            loop = asyncio.get_running_loop()
                            loop.call_later(0.02, connection.make_room, length, stream)
                    writer.write(connection.http.data_to_send())
            except ConnectionError:
                pass

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        wanted = wanted or plan(keep_alive=1)
        port = server.sockets[0].getsockname()[1]
        load = Load(wanted, port=port, scenarios=[Http2(wanted)])

        async def stop() -> None:
            nonlocal behave
            await eventually(lambda: requests > 50)
            load.mark_signalled()
            behave = after
            server.close()
            await eventually(lambda: load.statistics().refused == CONNECTIONS)

        result = await load.run(until=stop, within=60.0)
    [finding] = load.findings(EXIT)
    return finding, result


async def test_a_connection_is_left_at_a_goaway_and_what_is_above_it_may_be_sent_again() -> None:
    def after(connection: Connection) -> None:
        if len(connection.open) == STREAMS:
            last = connection.open[1]
            connection.answer()
            connection.answer()
            connection.http.close_connection(last_stream_id=last)

    finding, result = await measure(Connection.answer, after)
    assert finding.result == "passed", finding.text
    assert result.total.retryable == CONNECTIONS * (STREAMS - 2)
    assert result.total.served == result.total.sent - result.total.retryable > 50
    assert result.refused == CONNECTIONS


async def test_what_is_open_on_a_connection_that_is_reset_is_lost() -> None:
    def after(connection: Connection) -> None:
        if len(connection.open) == STREAMS:
            connection.writer.transport.abort()

    finding, result = await measure(Connection.answer, after)
    assert finding.failed
    assert result.total.lost_total == CONNECTIONS * STREAMS


async def test_a_wrong_answer_is_counted_and_the_next_request_is_sent() -> None:
    answered = 0

    def after(connection: Connection) -> None:
        nonlocal answered
        answered += 1
        if answered <= 3:
            connection.answer("500")
        elif answered < 20:
            connection.answer()
        elif len(connection.open) == STREAMS:
            connection.http.close_connection(last_stream_id=0)

    finding, result = await measure(Connection.answer, after)
    assert finding.failed
    assert result.total.wrong == {"status 500": 3}
    assert result.total.lost == {}


async def test_a_header_of_the_plan_takes_the_place_of_ours() -> None:
    seen: list[list[tuple[str, str]]] = []

    def answer(connection: Connection) -> None:
        named = ("content-type", ":authority", "host")
        seen.append([field for field in connection.fields if field[0] in named])
        connection.answer()

    def after(connection: Connection) -> None:
        if len(connection.open) == STREAMS:
            connection.http.close_connection(last_stream_id=0)

    given = (("Content-Type", "application/problem+json"), ("Host", "example.com"))
    wanted = replace(plan(keep_alive=1), body=b"{}", headers=given)
    await measure(answer, after, wanted)
    assert seen
    wanted_fields = [(":authority", "example.com"), ("content-type", "application/problem+json")]
    assert all(fields == wanted_fields for fields in seen)


async def test_no_more_bytes_of_bodies_are_sent_than_the_server_takes() -> None:
    """The server half of h2 ends a connection on which there are more of them."""

    def after(connection: Connection) -> None:
        if len(connection.open) == STREAMS:
            connection.writer.transport.abort()

    wanted = replace(plan(keep_alive=1), body=b"x" * 30_000)
    _, result = await measure(Connection.answer, after, wanted)
    assert result.before.lost == {}
    assert result.before.served > 20


async def test_a_body_that_may_never_find_room_is_not_sent() -> None:
    scenario = Http2(replace(plan(keep_alive=1), body=b"x" * 32_768))
    await scenario.prepare(Run(scenario.plan, host="127.0.0.1", port=free_port()))
    assert scenario.finding(EXIT).text == "its client sends no body of more than 32,767 bytes"


async def test_a_server_that_speaks_only_http_1_is_not_run() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    scenario = Http2(plan(keep_alive=1))
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await scenario.prepare(Run(scenario.plan, host="127.0.0.1", port=port))
    assert scenario.is_left_out
    assert scenario.finding(EXIT).detail == "the server does not speak it without TLS"
