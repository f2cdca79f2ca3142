"""One connection: what it knows before a write, and what it takes for a complete answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import anyio
import pytest
from support.polling import PATIENCE, eventually
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
    status,
)
from graceful_asgi._check.client.answer import HttpAnswer
from graceful_asgi._check.client.http1 import HttpConnection, connect
from graceful_asgi._check.client.http1 import Request as ToSend
from graceful_asgi._check.client.plan import Endpoint
from graceful_asgi._check.result.counts import Lost, Unsent

pytestmark = pytest.mark.anyio

CONTINUE = b"HTTP/1.1 102 Processing\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


class ResetAtOnce(Adversary):
    """Resets every connection it accepts, before a byte has passed."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        reset(writer)


class ReadsBodies(Adversary):
    """Answers a request once it has read its whole body."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            is_whole = await reader.readexactly(len(LONG)) == LONG
            writer.write(OK if is_whole else status(400))


class AnswersUnread(Adversary):
    """Answers a request without its body, and reads no more."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await anyio.sleep_forever()


GET = ToSend.make("GET", "/", authority="server")

LONG = bytes(range(256)) * 80_000
"""More than the kernel takes at once (`net.ipv4.tcp_wmem`: some 4 MB)."""

POST = ToSend.to(Endpoint("--post-path", "POST", "/", body=LONG), authority="server", headers=())


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


async def test_a_long_body_follows_by_itself_as_the_server_reads_it() -> None:
    """The kernel mostly takes megabytes at once, but has been seen to take only 32 kB."""
    async with ReadsBodies(always(lambda _: None)).serving() as server:
        connection = await connect("127.0.0.1", server.port, within=5.0)
        for _ in range(2):
            assert connection.send(POST) is None
            answer = await connection.receive()
            assert isinstance(answer, HttpAnswer)
            assert (answer.status, answer.reusable) == (200, True)
        connection.close()


async def test_what_finds_the_buffer_of_the_kernel_full_follows_by_itself() -> None:
    """As over HTTP/2, where requests do not wait for each other."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    filling = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filling += ours.send(b"." * 4096)
    with theirs, contextlib.closing(HttpConnection(ours)) as connection:
        assert connection.write_now(b"a") is None
        assert connection.write_now(b"b") is None
        theirs.setblocking(False)
        read = b""
        while len(read) < filling + 2:
            with anyio.fail_after(PATIENCE):
                read += await asyncio.get_running_loop().sock_recv(theirs, 65536)
    assert read.lstrip(b".") == b"ab"


async def test_what_is_written_next_comes_after_a_long_body() -> None:
    async with ReadsBodies(always(lambda _: None)).serving() as server:
        connection = await connect("127.0.0.1", server.port, within=5.0)
        half = len(POST.data) // 2
        assert connection.send(replace(POST, data=POST.data[:half])) is None
        await connection.write(POST.data[half:])
        answer = await connection.receive()
        assert isinstance(answer, HttpAnswer)
        assert answer.status == 200
        connection.close()


async def test_a_request_that_was_answered_unread_leaves_no_reusable_connection() -> None:
    async with AnswersUnread(always(lambda _: None)).serving() as server:
        connection = await connect("127.0.0.1", server.port, within=5.0)
        assert connection.send(POST) is None
        answer = await connection.receive()
        assert isinstance(answer, HttpAnswer)
        assert not answer.reusable
        connection.close()


async def test_a_connect_that_is_refused_raises_an_os_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect("127.0.0.1", free_port(), within=5.0)
