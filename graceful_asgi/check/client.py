"""One HTTP/1.1 connection on a raw socket, and what became of each request on it. No counting.

The socket is used directly, not through a transport, because only the kernel knows the two things
the count rests on: whether the whole request was written, and whether the peer had already closed.
A transport buffers the first and learns the second when its loop comes round to it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import anyio
import h11

from graceful_asgi.check.counts import Answered, LossKind, Lost, Unsent

_READ_SIZE: Final = 65536


class Connection:
    """An established connection; make one with `connect`. Not safe for use by two tasks at once."""

    __slots__ = ("_host_header", "_http", "_requests", "_socket")

    def __init__(self, sock: socket.socket, *, host_header: str) -> None:
        self._socket = sock
        self._host_header = host_header
        self._http = h11.Connection(h11.CLIENT)
        self._requests = 0

    def is_stale(self) -> bool:
        """Whether the peer has closed, reset or said something unasked, as far as we can know.

        Asks the kernel, so a FIN that has arrived is never missed. What no client can see is a FIN
        still on its way.
        """
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def send(self, path: str) -> Unsent | None:
        """Write ``GET path`` in one step, without waiting. None: written in full."""
        if self._requests:
            self._http.start_next_cycle()
        headers = [("Host", self._host_header), ("Accept", "*/*")]
        request = h11.Request(method="GET", target=path, headers=headers)
        data = self._http.send(request) or b""
        self._http.send(h11.EndOfMessage())
        try:
            written = self._socket.send(data)
        except OSError as error:
            return Unsent(reason=str(error))
        if written < len(data):
            # The buffer of a connection with nothing in flight holds far more than one request.
            return Unsent(reason=f"{written} of {len(data)} bytes written")
        self._requests += 1
        return None

    async def receive(self) -> Answered | Lost:
        """The answer to the request just written, or how it was lost.

        Waits for ever; whoever gives up on it records ``lost("timeout")``.
        """
        loop = asyncio.get_running_loop()
        status = 0
        begun = ended = False
        try:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    data = await loop.sock_recv(self._socket, _READ_SIZE)
                    begun, ended = begun or bool(data), not data
                    self._http.receive_data(data)
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.EndOfMessage):
                    return Answered(status=status, reusable=self._reusable)
        except OSError:
            if begun:
                return self.lost("cut body")
            return self.lost("reset on reuse" if self._reused else "reset on fresh")
        except h11.RemoteProtocolError:
            if not ended:
                return self.lost("bad reply")
            return self.lost("cut body" if begun else "empty reply")

    def lost(self, kind: LossKind) -> Lost:
        """The outcome of the request just written, once it is known to be lost."""
        return Lost(kind=kind, reused=self._reused)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    @property
    def _reused(self) -> bool:
        return self._requests > 1

    @property
    def _reusable(self) -> bool:
        # Bytes beyond the answer belong to no request: whatever they are, nobody may build on them.
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        return done and not self._http.trailing_data[0]


async def connect(host: str, port: int, *, within: float) -> Connection:
    """Open a TCP connection. Raises `OSError` (`TimeoutError` after `within` seconds)."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with anyio.fail_after(within):
            await loop.sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    host_header = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Connection(sock, host_header=host_header)
