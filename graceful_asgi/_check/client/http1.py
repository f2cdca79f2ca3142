"""HTTP/1.1 on a raw socket: requests as bytes, and what became of each on its connection.

The socket is used directly, not through a transport, because only the kernel knows the two things
the count rests on: whether a request was written, and whether the peer had already closed. A
transport buffers the first and learns the second when its loop comes round to it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
import h11

from ..errors import CheckError
from ..result.counts import LossKind, Lost, Unsent
from .answer import Body, HttpAnswer, answer, recognise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .plan import Endpoint, Header

_READ_SIZE: Final = 65536
_TCP_INFO: Final = struct.Struct("=44xI8xI")
"""The beginning of Linux' `struct tcp_info` (linux/tcp.h): the milliseconds since data was sent (or
since the handshake, where none was), and those since the last packet came."""

Watch: TypeAlias = Callable[[bytes], None]
"""A function that gets no bytes when the head of an answer has come, and each piece of its body."""


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes of one request. Make one with `Request.make`."""

    data: bytes = field(repr=False)
    """The head, and the body where it is not written piece by piece."""
    event: h11.Request
    endpoint: Endpoint | None = None
    """The endpoint of the learned answers. None: any complete answer but a 5xx is right."""

    @classmethod
    def make(
        cls, method: str, path: str, *, authority: str, headers: Sequence[Header] = ()
    ) -> Request:
        """Build a request without a body; one of `headers` replaces ours of the same name.

        Raises `CheckError` for a path or header that HTTP does not allow.
        """
        ours = [("Host", authority), ("Accept", "*/*"), ("User-Agent", "graceful-asgi-check")]
        try:
            event = h11.Request(method=method, target=path, headers=merged(ours, headers))
            data = h11.Connection(h11.CLIENT).send(event)
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise CheckError(
                f"{method} {path!r} with headers {list(headers)!r} is no HTTP request: {error}"
            ) from error
        return cls(data or b"", event)

    @classmethod
    def to(
        cls,
        endpoint: Endpoint,
        *,
        authority: str,
        headers: Sequence[Header],
        with_body: bool = True,
    ) -> Request:
        """Build the request that asks for an endpoint; `headers` replace those of the endpoint.

        Without `with_body` the body, which is announced all the same, is left to the caller.
        """
        fields = merged(endpoint.headers, headers)
        if endpoint.method != "GET":
            fields.append(("Content-Length", str(len(endpoint.body))))
        head = cls.make(endpoint.method, endpoint.path, authority=authority, headers=fields)
        return cls(head.data + (endpoint.body if with_body else b""), head.event, endpoint)


def merged(ours: Sequence[Header], given: Sequence[Header]) -> list[Header]:
    """Return both; of ours those whose names are not given."""
    names = {name.lower() for name, _ in given}
    return [*(header for header in ours if header[0].lower() not in names), *given]


class HttpConnection:
    """An established connection; make one with `connect`. For one task at a time, in one loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._request: Request | None = None
        self._requests = 0
        self._outstanding = 0
        self._rest = b""
        self._unwritten = b""
        """The part of a long request that the kernel has not taken yet."""
        self._begun = self._ended = False
        self._given_up = False
        self._watched = False
        self._waiter: asyncio.Future[bytes] | None = None
        self.head: HttpAnswer | None = None
        """The head of the answer that is received, or was last; None: it has not come."""
        self.wanted_at = time.monotonic()
        """The time at which its client began to wait for it."""

    @property
    def is_reused(self) -> bool:
        """Return True from the second request on."""
        return self._requests > 1

    # -- writing --------------------------------------------------------------------------------

    def is_stale(self) -> bool:
        """Return True once the peer has closed, reset or sent something unasked.

        Asks the kernel, so a FIN that has arrived is never missed. No client can see a FIN that is
        still on its way.
        """
        return self._peek() is not None

    def has_ended(self) -> bool:
        """Return True once the peer has closed or reset, with all that it sent before read."""
        return self._peek() == b""

    def _peek(self) -> bytes | None:
        """Return what is next to read; empty after the end and after a reset, None: nothing yet."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def seconds_to_close(self) -> float:
        """Return how long the peer has waited for the first byte, if it has closed since.

        0.0 if it has not, or has reset the connection, or the system does not show that.
        """
        if sys.platform != "linux":
            return 0.0
        try:
            if self._socket.recv(1, socket.MSG_PEEK):
                return 0.0
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:  # nothing to read yet, or a reset
            return 0.0
        since_handshake, since_close = _TCP_INFO.unpack(info)
        return float(since_handshake - since_close) / 1000

    def write_now(self, data: bytes) -> Unsent | None:
        """Write without waiting. None: what the kernel does not take now is written by and by.

        It takes megabytes at once, but has been seen to take only 32 kB for a while.
        """
        if self._unwritten:
            self._unwritten += data
            return None
        try:
            written = self._socket.send(data)
        except BlockingIOError:  # of what was written before there is too much still
            written = 0
        except OSError as error:
            return Unsent(reason=str(error))
        if written < len(data):
            self._unwritten = data[written:]
            self._loop.add_writer(self._socket, self._write_more)
        return None

    def _write_more(self) -> None:
        try:
            written = self._socket.send(self._unwritten)
        except BlockingIOError:
            return
        except OSError:  # whether it was answered all the same is what `receive` says
            written = len(self._unwritten)
        self._unwritten = self._unwritten[written:]
        if not self._unwritten:
            self._loop.remove_writer(self._socket)

    def _take_unwritten(self) -> bytes:
        """Return what the kernel has not taken yet, and write it no more."""
        unwritten, self._unwritten = self._unwritten, b""
        if unwritten:
            self._loop.remove_writer(self._socket)
        return unwritten

    def send(self, request: Request, *, copies: int = 1) -> Unsent | None:
        """Write the request, `copies` times, as `write_now` does. None: it is on its way."""
        unsent = self.write_now(request.data * copies)
        if unsent is not None:
            return unsent
        self._request = request
        self._requests += 1
        self._outstanding = copies
        return None

    async def write(self, data: bytes) -> None:
        """Write more: a piece of a request's body. Raises `OSError` when the peer has gone."""
        await self._loop.sock_sendall(self._socket, self._take_unwritten() + data)

    # -- reading --------------------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """The request written last. Raises `RuntimeError` before the first."""
        if self._request is None:
            raise RuntimeError("receive() before send()")
        return self._request

    async def receive(self, watch: Watch | None = None) -> HttpAnswer | Lost:
        """Return the answer to the oldest unanswered request, or how that request was lost.

        Waits for ever; `give_up` ends the wait.
        """
        request = self.request
        reused = self.is_reused
        self._begun, self._ended = bool(self._rest), False
        self.head = None
        try:
            return await self._answer(request, watch)
        except TimeoutError:
            return Lost("timeout", reused)
        except OSError:
            reset: LossKind = "reset on reuse" if reused else "reset on fresh"
            return Lost("cut body" if self._begun else reset, reused)
        except h11.RemoteProtocolError:
            if not self._ended:
                return Lost("bad reply", reused)
            return Lost("cut body" if self._begun else "empty reply", reused)

    async def _answer(self, request: Request, watch: Watch | None) -> HttpAnswer:
        data = self._rest or await self._more()
        if watch is None and (simple := recognise(data)) is not None:
            self.head, end = simple
            return self._answered(self.head, data[end:])
        http = h11.Connection(h11.CLIENT)
        http.send(request.event)
        http.receive_data(data)
        body = Body()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await self._more())
            elif isinstance(event, h11.Response | h11.Data):
                piece = b""
                if isinstance(event, h11.Response):
                    self.head = _head_of(event)
                else:
                    body.add(piece := bytes(event.data))
                if watch is not None:
                    watch(piece)
            elif isinstance(event, h11.EndOfMessage) and self.head is not None:
                found = self.head._replace(reusable=http.their_state is h11.DONE)
                return self._answered(body.of(found), http.trailing_data[0])

    async def _more(self) -> bytes:
        data = await self.read()
        self._begun, self._ended = self._begun or bool(data), not data
        return data

    async def read(self) -> bytes:
        """Wait for bytes, and return them; empty at the end of the stream.

        Raises `OSError` for a reset, and `TimeoutError` once `give_up` was called.
        """
        if self._given_up:
            raise TimeoutError
        if not self._watched:
            self._loop.add_reader(self._socket, self._readable)
            self._watched = True
        self._waiter = self._loop.create_future()
        return await self._waiter

    @contextmanager
    def give_up_after(self, period: float | None) -> Iterator[None]:
        """Give up in the midst of the block, `period` seconds from now (None: never)."""
        timer = None if period is None else self._loop.call_later(period, self.give_up)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def give_up(self) -> None:
        """End the wait under way, and every later one, with a timeout. Idempotent."""
        self._given_up = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self._watched:
            self._loop.remove_reader(self._socket)
            self._watched = False
        self._take_unwritten()
        self._socket.close()

    def _readable(self) -> None:
        # Read here and now: a socket left readable would call this again before the waiter runs.
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._loop.remove_reader(self._socket)
            self._watched = False
            return
        try:
            waiter.set_result(self._socket.recv(_READ_SIZE))
        except BlockingIOError:
            pass
        except OSError as error:
            waiter.set_exception(error)

    def _answered(self, found: HttpAnswer, rest: bytes) -> HttpAnswer:
        self._outstanding -= 1
        self._rest = rest
        # Bytes that belong to no request: the next one would take them for its answer. Or an answer
        # to a request that the server has not read: it would take the rest for the next one.
        if ((rest and not self._outstanding) or self._unwritten) and found.reusable:
            return found._replace(reusable=False)
        return found


def _head_of(event: h11.Response) -> HttpAnswer:
    """Return the answer that a head begins, without a body."""
    names = {name for name, _ in event.headers}
    # Otherwise only the end of the connection ends the body (RFC 9112, 6.3, 8).
    framed = event.status_code in (204, 304) or b"content-length" in names
    framed = framed or b"transfer-encoding" in names
    return answer(event.status_code, False, event.headers)._replace(framed=framed)


async def connect(host: str, port: int, *, within: float) -> HttpConnection:
    """Open a TCP connection. Raises `OSError` (`TimeoutError` after `within` seconds)."""
    with anyio.fail_after(within):
        return HttpConnection(await connected_socket(host, port))


async def connected_socket(host: str, port: int) -> socket.socket:
    """Return a connected TCP socket that does not block. Raises `OSError`."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def authority(host: str, port: int) -> str:
    """Return the value of the Host header."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
