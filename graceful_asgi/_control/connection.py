"""`ControlConnection`: one connection to a control socket, on the server's side. It never waits.

The peer sends one line, gets its reply, and the connection closes. Output that the peer does not
read is kept, up to a limit. A peer that sends nothing, or reads nothing, is closed after a while.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from ..event_loop import monotonic
from .protocol import MAX_REPLY, MAX_REQUEST, build_reply

if TYPE_CHECKING:
    from .._core.begun_drain import BegunDrain

IDLE_PERIOD: Final = 10.0
"""Seconds for a peer to send its request, or to read its reply."""

MAX_UNREAD: Final = 2 * MAX_REPLY
_RECEIVE: Final = 65536

_LINUX: Final = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid."""
_DARWIN: Final = struct.Struct("IIh")
"""The beginning of `struct xucred`: version, uid, number of groups."""
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1


class ControlConnection:
    """A peer: the part of its request that has come, and the part of the reply that has not gone.

    `begun` is the drain whose outcome the peer waits for; None where it waits for none. Once
    `closed` is True there is nothing more to do, and the owner closes the connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.begun: BegunDrain | None = None
        self.progress_due = 0.0
        self.closed = False
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._has_request = False
        self._has_last_line = False
        self._active_at = monotonic()

    @property
    def events(self) -> int:
        """The events that a selector has to wait for; 0 for none."""
        read = 0 if self._has_request else selectors.EVENT_READ
        return read | (selectors.EVENT_WRITE if self._outgoing else 0)

    @property
    def is_waiting(self) -> bool:
        """True while the peer waits for a drain, and has read everything up to now."""
        return self.begun is not None and not self._outgoing

    def idle_left(self) -> float:
        """Return the seconds until the peer has used its time up; infinite while it waits."""
        if self.is_waiting:
            return float("inf")
        return self._active_at + IDLE_PERIOD - monotonic()

    def read(self) -> bytes | None:
        """Read what has come; return the request once it is whole."""
        try:
            data = self.socket.recv(_RECEIVE)
        except BlockingIOError:
            return None
        self._incoming += data
        line, end, _ = self._incoming.partition(b"\n")
        if not (data or self._incoming):
            self.closed = True
        elif end or not data or len(line) > MAX_REQUEST:
            self._has_request = True
            return bytes(line)
        return None

    def send(self, line: bytes, *, last: bool = False) -> None:
        """Send *line*, now or as the peer reads. The connection closes after the *last* one."""
        if self._has_last_line:
            return
        if len(self._outgoing) + len(line) > MAX_UNREAD:
            self.closed = True
            return
        self._outgoing += line
        self._has_last_line = last
        self.write()

    def send_error(self, why: str) -> None:
        """Reply that the request was not carried out, and close."""
        self.send(build_reply("error", error=why), last=True)

    def write(self) -> None:
        """Write as much as the socket takes."""
        if self.closed:
            return
        try:
            sent = self.socket.send(self._outgoing) if self._outgoing else 0
        except BlockingIOError:
            return
        except OSError:  # the peer is gone
            self.closed = True
            return
        if sent:
            del self._outgoing[:sent]
            self._active_at = monotonic()
        if self._has_last_line and not self._outgoing:
            self.closed = True

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self.closed = True
        # The close of a UNIX socket with unread bytes makes the peer's `recv` fail with ECONNRESET
        # before it has read our last line (`unix_release_sock` in Linux). So let no more bytes in,
        # then read those that are there.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)
            self.socket.recv(_RECEIVE)
        self.socket.close()


def peer_uid(connection: socket.socket) -> int | None:
    """Return the user id of the peer of a UNIX socket; None where the system does not show it."""
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _LINUX.size)
        uid: int = _LINUX.unpack(data)[1]
        return uid & 0xFFFFFFFF
    if sys.platform == "darwin":
        data = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 128)
        return int(_DARWIN.unpack_from(data)[1])
    return None


def is_trusted(connection: socket.socket) -> bool:
    """Return True if the peer runs as this process's user, or as root.

    Where the system does not show the user, the mode of the directory alone keeps others out.
    """
    uid = peer_uid(connection)
    return uid is None or uid in (0, os.geteuid())
