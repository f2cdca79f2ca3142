"""A server that misbehaves by construction, and knows exactly how often it did."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
OK_AND_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
OK_HTTP_10 = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_UNTIL_EOF = b"HTTP/1.1 200 OK\r\n\r\nok"
CUT_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
CUT_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
CUT_HEAD = b"HTTP/1.1 200 OK\r\nContent-Le"
NO_HTTP = b"What is this? I speak something else.\r\n\r\n"


def status(code: int) -> bytes:
    """A complete answer with that status."""
    return b"HTTP/1.1 %d Because\r\nContent-Length: 2\r\n\r\nno" % code


@dataclass(slots=True)
class Request:
    """One request as the server saw it."""

    path: str
    number: int
    """Counts from 1 over the whole server."""
    number_on_connection: int
    writer: asyncio.StreamWriter

    def answer(self, data: bytes) -> None:
        """Write `data` and leave the connection open."""
        self.writer.write(data)

    def end(self, data: bytes = b"") -> None:
        """Write `data` and end the stream, in one step: the client sees both or neither."""
        self.writer.write(data)
        self.writer.write_eof()

    def reset(self, data: bytes = b"") -> None:
        """Write `data`, then RST."""
        self.writer.write(data)
        reset(self.writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST: linger on, for no time."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass(slots=True)
class Adversary:
    """Calls `respond` for each request; `respond` returns whether it answered it properly."""

    respond: Callable[[Request], Awaitable[bool]]
    enough: int = 0
    """`done` is set when this many requests were answered properly."""
    port: int = 0
    connections: int = 0
    requests: int = 0
    served: int = 0
    dropped: int = 0
    most_on_a_connection: int = 0
    done: anyio.Event = field(default_factory=anyio.Event)
    listener: asyncio.Server | None = None
    _handlers: set[asyncio.Task[None]] = field(default_factory=set)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        self.connections += 1
        number = 0
        try:
            while head := await _read_head(reader):
                number += 1
                self.requests += 1
                self.most_on_a_connection = max(self.most_on_a_connection, number)
                path = head.split(b" ")[1].decode()
                if await self.respond(Request(path, self.requests, number, writer)):
                    self.served += 1
                    if self.served == self.enough:
                        self.done.set()
                else:
                    self.dropped += 1
        finally:
            writer.close()

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[Adversary]:
        """Serve on 127.0.0.1, by default on a free port; nothing is left running afterwards."""
        self.listener = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.port = self.listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.stop_listening()
            await asyncio.sleep(0)  # what the loop has accepted has its handler by then
            await asyncio.sleep(0)
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)

    def stop_listening(self) -> None:
        """Close the listener; connections stay as they are. Idempotent."""
        if self.listener is not None:
            self.listener.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self.handle(reader, writer))
        # Here as well as in `handle`: a task that is cancelled before its first step runs no line.
        task.add_done_callback(lambda _: writer.close())
        self._handlers.add(task)


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def always(answer: Callable[[Request], None]) -> Callable[[Request], Awaitable[bool]]:
    """Answer each request in this way."""

    async def respond(request: Request) -> bool:
        answer(request)
        return True

    return respond


def first(
    count: int,
    misbehave: Callable[[Request], None],
    *,
    when: Callable[[Request], bool] = lambda request: True,
) -> Callable[[Request], Awaitable[bool]]:
    """Misbehave on the first `count` requests for which `when` holds; answer all others."""
    left = count

    async def respond(request: Request) -> bool:
        nonlocal left
        if left and when(request):
            left -= 1
            misbehave(request)
            return False
        request.answer(OK)
        return True

    return respond
