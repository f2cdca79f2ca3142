"""One connection: what it knows before a write, and what it takes for a complete answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.polling import eventually
from support.ports import free_port

from check.client.adversary import (
    OK,
    OK_AND_CLOSE,
    OK_CHUNKED,
    Adversary,
    Request,
    always,
    first,
    reset,
)
from graceful_asgi._check.client.answer import HttpAnswer
from graceful_asgi._check.client.http1 import Request as ToSend
from graceful_asgi._check.client.http1 import connect
from graceful_asgi._check.result.counts import Lost, Unsent

if TYPE_CHECKING:
    import asyncio

pytestmark = pytest.mark.anyio

CONTINUE = b"HTTP/1.1 102 Processing\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


class ResetAtOnce(Adversary):
    """Resets every connection it accepts, before a byte has passed."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        reset(writer)


GET = ToSend.make("GET", "/", authority="server")


async def exchange_once(answer: bytes) -> HttpAnswer | Lost:
    async with Adversary(always(lambda request: request.answer(answer))).serving() as adversary:
        connection = await connect("127.0.0.1", adversary.port, within=5.0)
        try:
            assert connection.send(GET) is None
            return await connection.receive()
        finally:
            connection.close()


@pytest.mark.parametrize("answer", [OK, OK_CHUNKED, CONTINUE + OK])
async def test_a_complete_answer_leaves_the_connection_reusable(answer: bytes) -> None:
    assert await exchange_once(answer) == HttpAnswer(200, reusable=True, body=b"ok", length=2)


async def test_connection_close_makes_the_connection_not_reusable() -> None:
    found = await exchange_once(OK_AND_CLOSE)
    assert found == HttpAnswer(200, reusable=False, body=b"ok", length=2)


async def test_bytes_beyond_the_answer_make_the_connection_not_reusable() -> None:
    found = await exchange_once(OK + OK)
    assert found == HttpAnswer(200, reusable=False, body=b"ok", length=2)


async def test_a_switch_of_protocols_nobody_asked_for_is_a_bad_reply() -> None:
    assert await exchange_once(SWITCHING) == Lost(kind="bad reply", reused=False)


async def test_a_connection_is_stale_once_the_peer_has_ended_it() -> None:
    async with Adversary(always(lambda request: request.end(OK))).serving() as adversary:
        connection = await connect("127.0.0.1", adversary.port, within=5.0)
        assert not connection.is_stale()
        connection.send(GET)
        assert isinstance(await connection.receive(), HttpAnswer)
        await eventually(connection.is_stale)
        connection.close()


async def test_a_write_to_a_connection_that_was_reset_is_unsent_and_not_lost() -> None:
    adversary = ResetAtOnce(first(0, Request.reset))
    async with adversary.serving():
        connection = await connect("127.0.0.1", adversary.port, within=5.0)
        await eventually(connection.is_stale)
        assert isinstance(connection.send(GET), Unsent)
        connection.close()


async def test_a_connect_that_is_refused_raises_an_os_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect("127.0.0.1", free_port(), within=5.0)
