"""`LineStream`: a connection to a control socket on the client's side, on any event loop.

`anyio.connect_unix` is not used. A `connect` to a UNIX socket whose queue is full fails with EAGAIN
at once; asyncio takes this for a connection in progress, and then for one that is established.
"""

from __future__ import annotations

import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from .protocol import MAX_REPLY, ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FULL_PERIOD: Final = 0.02
"""Seconds until the next try where the queue is full: no event tells when it has room."""


class LineStream:
    """Sends and receives lines on a connected, non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._incoming = bytearray()

    async def send(self, line: bytes) -> None:
        """Send *line*. It is short, and the buffer of the socket is empty. Raises `OSError`."""
        await anyio.lowlevel.checkpoint()
        with contextlib.suppress(BrokenPipeError):  # the peer has closed, perhaps with a reply
            self._socket.send(line)

    async def receive(self) -> bytes:
        """Return the next line.

        Raises:
            ConnectionError: the peer has closed before its end.
            ProtocolError: it is too long.
        """
        while b"\n" not in self._incoming:
            if len(self._incoming) > MAX_REPLY:
                raise ProtocolError(f"more than {MAX_REPLY} bytes in a line")
            await _readable(self._socket)
            data = self._socket.recv(MAX_REPLY)
            if not data:
                raise ConnectionResetError("closed in the middle of a reply")
            self._incoming += data
        line, _, self._incoming = self._incoming.partition(b"\n")
        return bytes(line)


def _readable(sock: socket.socket) -> Any:
    # anyio has it from 4.7 on, and the older name warns since then.
    wait = getattr(anyio, "wait_readable", None) or anyio.wait_socket_readable
    return wait(sock)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[LineStream]:
    """Give a connection to *address* for a block. Raises `OSError` where nothing listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address)
                break
            except BlockingIOError:
                await anyio.sleep(FULL_PERIOD)
        yield LineStream(sock)
