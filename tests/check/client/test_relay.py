"""A relay makes the server as far away as the plan says, for bytes, ends and resets alike."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from support.polling import eventually
from support.ports import free_port

from check.client.adversary import OK, Adversary, Request, first
from graceful_asgi._check.client.answer import HttpAnswer
from graceful_asgi._check.client.http1 import Request as ToSend
from graceful_asgi._check.client.relay import Relay
from graceful_asgi._check.result.counts import Lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from graceful_asgi._check.client.http1 import HttpConnection

pytestmark = pytest.mark.anyio

ROUND_TRIP = 0.2
GET = ToSend.make("GET", "/", authority="server")


@asynccontextmanager
async def connected(
    respond: Callable[[Request], None],
) -> AsyncIterator[tuple[HttpConnection, Adversary]]:
    """Connect through a relay to a server that treats each request so."""
    relay = Relay(ROUND_TRIP)
    adversary = Adversary(first(10**6, respond))
    async with adversary.serving():
        connection = await relay.connect("127.0.0.1", adversary.port, within=5.0)
        try:
            yield connection, adversary
        finally:
            connection.close()
            relay.close()


def passed(began: float) -> float:
    return time.monotonic() - began


async def test_a_connection_takes_a_round_trip_and_an_answer_another_one() -> None:
    began = time.monotonic()
    async with connected(lambda request: request.answer(OK)) as (connection, _):
        assert passed(began) >= ROUND_TRIP
        began = time.monotonic()
        connection.send(GET)
        assert isinstance(await connection.receive(), HttpAnswer)
        assert ROUND_TRIP <= passed(began) < 25 * ROUND_TRIP


async def test_a_refused_connection_is_refused_a_round_trip_later() -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        await Relay(ROUND_TRIP).connect("127.0.0.1", free_port(), within=5.0)
    assert passed(began) >= ROUND_TRIP


async def test_an_end_is_not_known_before_it_has_arrived() -> None:
    """For half a round trip the client takes the connection for a good one: the race is real."""
    ended = []

    def end(request: Request) -> None:
        request.end(OK)
        ended.append(time.monotonic())

    async with connected(end) as (connection, _):
        connection.send(GET)
        while not ended:
            assert not connection.is_stale()
            await asyncio.sleep(0.001)
        # Here it is, unless this machine has stood still for that long.
        assert not connection.is_stale() or passed(ended[0]) >= ROUND_TRIP / 2
        assert isinstance(await connection.receive(), HttpAnswer)
        await eventually(connection.is_stale)
        assert passed(ended[0]) >= ROUND_TRIP / 2


async def test_a_reset_is_a_reset() -> None:
    async with connected(lambda request: request.reset()) as (connection, _):
        connection.send(GET)
        assert await connection.receive() == Lost("reset on fresh", reused=False)


async def test_a_request_to_a_server_that_has_gone_is_reset() -> None:
    async with connected(lambda request: request.end(OK)) as (connection, adversary):
        connection.send(GET)
        assert isinstance(await connection.receive(), HttpAnswer)
        assert adversary.requests == 1
        connection.send(GET)
        assert isinstance(await connection.receive(), Lost)


async def test_what_is_more_than_is_let_on_the_way_at_once_comes_whole() -> None:
    body = b"x" * (12 << 20)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with connected(lambda request: request.answer(large)) as (connection, _):
        connection.send(GET)
        answer = await connection.receive()
        assert isinstance(answer, HttpAnswer)
        assert answer.length == len(body)


async def test_a_client_that_leaves_leaves_the_server_too() -> None:
    gone = asyncio.Event()

    class Watching(Adversary):
        async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.read() == b""
            gone.set()
            writer.close()

    relay = Relay(ROUND_TRIP)
    async with Watching(first(0, Request.reset)).serving() as adversary:
        connection = await relay.connect("127.0.0.1", adversary.port, within=5.0)
        connection.close()
        await asyncio.wait_for(gone.wait(), 5.0)
    relay.close()
