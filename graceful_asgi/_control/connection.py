"""One connection to a control socket, from the server's side. Nothing in it waits.

It reads a line, is answered, and closes. What the peer does not take is kept, up to a limit, and
given up after a while; so is a peer that says nothing.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from typing import TYPE_CHECKING, Final

from .protocol import MAX_REPLY, MAX_REQUEST

if TYPE_CHECKING:
    import socket

    from .._core.begun_drain import BegunDrain

IDLE_PERIOD: Final = 10.0
"""Seconds for a peer to say what it wants, or to take what it has been told."""

MAX_UNREAD: Final = 2 * MAX_REPLY
_RECEIVE: Final = 65536


class Connection:
    """A peer, what it has said and what it is still to be told."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.begun: BegunDrain | None = None
        """What the peer waits for, if it does."""
        self.progress_due = 0.0
        self.closed = False
        """Whether there is nothing more to do here. Its owner closes it then."""
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._last = False
        self._heard = False
        self._active = time.monotonic()

    @property
    def events(self) -> int:
        """What to wait for, for a selector; 0 for nothing."""
        read = selectors.EVENT_READ if not self._heard else 0
        return read | (selectors.EVENT_WRITE if self._outgoing else 0)

    @property
    def is_waiting(self) -> bool:
        """Whether the peer waits for a drain, and has taken all that it has been told."""
        return self.begun is not None and not self._outgoing

    def idle_left(self) -> float:
        """Seconds until the peer has had its time; a peer that waits has all it wants."""
        if self.is_waiting:
            return float("inf")
        return self._active + IDLE_PERIOD - time.monotonic()

    def read(self) -> bytes | None:
        """Read what there is; return the request once it is there."""
        try:
            data = self.socket.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return None
        self._incoming += data
        line, end, _ = self._incoming.partition(b"\n")
        if not (data or self._incoming):
            self.closed = True
        elif end or not data or len(line) > MAX_REQUEST:
            self._heard = True
            return bytes(line)
        return None

    def say(self, line: bytes, *, last: bool = False) -> None:
        """Tell the peer, now or as it reads. After the last line the connection closes."""
        if self._last:
            return
        if len(self._outgoing) + len(line) > MAX_UNREAD:
            self.closed = True
            return
        self._outgoing += line
        self._last = last
        self.write()

    def write(self) -> None:
        """Write what the peer takes."""
        if self.closed:
            return
        try:
            sent = self.socket.send(self._outgoing) if self._outgoing else 0
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it has gone: it wanted to know no more
            self.closed = True
            return
        if sent:
            del self._outgoing[:sent]
            self._active = time.monotonic()
        if self._last and not self._outgoing:
            self.closed = True

    def close(self) -> None:
        """Close it. Idempotent."""
        self.closed = True
        with contextlib.suppress(OSError):  # what is unread would cost the peer our last line
            self.socket.recv(_RECEIVE)
        self.socket.close()
