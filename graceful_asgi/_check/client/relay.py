"""Connections that are as far away as the plan says: a relay in this process, no root needed.

On loopback a client knows at once that its connection has ended, so it hardly ever writes into one
that has. With a round trip of 20 ms it does, as real clients do.

A relay cannot stretch the handshake itself: the kernel does it at once. The connection is accepted
half a round trip after the client wants it, and the client may write half a round trip after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from typing import Final

import anyio

from .http1 import HttpConnection, connected_socket

_READ_SIZE: Final = 65_536
_MOST_ON_THE_WAY: Final = 4 << 20
"""Bytes in one direction. A sender that is faster than its receiver has to wait, as with TCP."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: `close` sends an RST."""


class Relay:
    """Opens connections through sockets that pass everything on half a round trip later."""

    def __init__(self, round_trip: float) -> None:
        self._delay: Final = round_trip / 2
        self._listener: socket.socket | None = None
        self._pairs: set[_Pair] = set()

    async def connect(self, host: str, port: int, *, within: float) -> HttpConnection:
        """Open a connection. Raises `OSError` as `connect` does, a round trip later."""
        with anyio.fail_after(within):
            await asyncio.sleep(self._delay)
            try:
                far = await connected_socket(host, port)
            except OSError:
                await asyncio.sleep(self._delay)
                raise
            client, near = self._socket_pair()
            pair = _Pair(near, far, self._delay)
            self._pairs.add(pair)
            pair.closed.add_done_callback(lambda _: self._pairs.discard(pair))
            try:
                await asyncio.sleep(self._delay)
            except BaseException:
                client.close()
                raise
        return HttpConnection(client)

    def close(self) -> None:
        """Close all connections. Idempotent."""
        for pair in tuple(self._pairs):
            pair.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _socket_pair(self) -> tuple[socket.socket, socket.socket]:
        """Return two ends of a TCP connection: of a UNIX socket pair no end can be reset."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
        # On loopback this takes no time: the kernel does the whole handshake in the call.
        client = socket.create_connection(self._listener.getsockname())
        near, _ = self._listener.accept()
        for sock in (client, near):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, near


class _Pair:
    """A client's connection to the relay, and the relay's to the server."""

    def __init__(self, near: socket.socket, far: socket.socket, delay: float) -> None:
        self.closed: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self._sockets = (near, far)
        self._ways = (_Way(self, near, far, delay), _Way(self, far, near, delay))

    def way_ended(self) -> None:
        """Close both sockets once both directions have ended."""
        if all(way.has_ended for way in self._ways):
            self.close()

    def reset(self) -> None:
        """End both connections with an RST."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def close(self) -> None:
        """Close both sockets. Idempotent."""
        for way in self._ways:
            way.stop()
        for sock in self._sockets:
            sock.close()
        if not self.closed.done():
            self.closed.set_result(None)


class _Way:
    """Passes on what comes from one socket to another one, a while later."""

    def __init__(self, pair: _Pair, source: socket.socket, to: socket.socket, delay: float) -> None:
        self.has_ended = False
        self._pair = pair
        self._source, self._to, self._delay = source, to, delay
        self._loop = asyncio.get_running_loop()
        self._coming: deque[tuple[float, bytes | OSError]] = deque()
        """The bytes on their way, with the time of their arrival; empty bytes are the end."""
        self._on_the_way = 0
        self._waits_to_write = False
        self._reads = False
        self._timer: asyncio.TimerHandle | None = None
        self._read_on()

    def stop(self) -> None:
        """Stop passing on. Idempotent."""
        self._stop_reading()
        if self._waits_to_write:
            self._loop.remove_writer(self._to)
            self._waits_to_write = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _read_on(self) -> None:
        if not self._reads:
            self._loop.add_reader(self._source, self._readable)
            self._reads = True

    def _stop_reading(self) -> None:
        if self._reads:
            self._loop.remove_reader(self._source)
            self._reads = False

    def _readable(self) -> None:
        item: bytes | OSError
        try:
            item = self._source.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            item = error
        self._coming.append((time.monotonic() + self._delay, item))
        if isinstance(item, OSError) or not item:
            self._stop_reading()
        else:
            self._on_the_way += len(item)
            if self._on_the_way > _MOST_ON_THE_WAY:
                self._stop_reading()
        if self._timer is None and not self._waits_to_write:
            self._timer = self._loop.call_later(self._delay, self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        while self._coming and not self._waits_to_write:
            due, item = self._coming[0]
            if (left := due - time.monotonic()) > 0:
                self._timer = self._loop.call_later(left, self._arrive)
                return
            self._coming.popleft()
            if isinstance(item, OSError):
                return self._pair.reset()
            if not self._deliver(due, item):
                return

    def _deliver(self, due: float, data: bytes) -> bool:
        """Write what has arrived. Return False when the pair has been closed by that."""
        try:
            if not data:
                self._to.shutdown(socket.SHUT_WR)
                self.has_ended = True
                self._pair.way_ended()
                return False
            written = self._to.send(data)
        except BlockingIOError:
            written = 0
        except OSError:
            # The receiver has gone. What was on its way finds a closed port, which sends a reset.
            self._pair.reset()
            return False
        self._on_the_way -= written
        if written < len(data):
            self._coming.appendleft((due, data[written:]))
            self._loop.add_writer(self._to, self._writable)
            self._waits_to_write = True
        elif not self._reads and self._on_the_way <= _MOST_ON_THE_WAY and not self._has_last():
            self._read_on()
        return True

    def _writable(self) -> None:
        self._loop.remove_writer(self._to)
        self._waits_to_write = False
        self._arrive()

    def _has_last(self) -> bool:
        """Return True if the end of the source is on its way already."""
        if not self._coming:
            return False
        last = self._coming[-1][1]
        return isinstance(last, OSError) or not last
