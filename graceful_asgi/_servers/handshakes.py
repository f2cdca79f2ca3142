"""Decides how long a closing listener waits for TCP handshakes: until none is under way.

The kernel is asked by netlink's sock_diag(7), on Linux only. No privilege is needed. Some
containers forbid this kind of socket: then the wait is a few of the round trips that the server
sees.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from ..event_loop import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

SHORTEST_WAIT: Final = 0.01
"""Seconds to wait in any case: another processor may be at work on a packet that had found the
listener before."""

LONGEST_WAIT: Final = 1.0
"""Seconds to wait for handshakes under way, at the most. After that the kernel repeats its SYN-ACK:
the client has gone, or its network loses packets."""

ROUND_TRIPS: Final = 4
"""Round trips to wait where the kernel does not show whether a handshake is under way."""

DEFAULT_WAIT: Final = 0.25
"""Seconds to wait where no round trip is known either."""

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x001 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP: all that fit, not one socket
_DONE, _ERROR = 3, 2  # NLMSG_DONE, NLMSG_ERROR
_SYN_RECEIVED: Final = 1 << 3  # a set of states; TCP_SYN_RECV is number 3 (net/tcp_states.h)
_HEADER: Final = struct.Struct("=IHHII")
"""`struct nlmsghdr`: length, kind, flags, sequence number, port."""
_REQUEST: Final = struct.Struct("=BBBxI")
"""The beginning of `struct inet_diag_req_v2`: family, protocol, extensions, states."""
_MESSAGE: Final = struct.Struct("=BBBB 48x I")
"""The beginning of `struct inet_diag_msg`: family, state, timer, retransmissions, (which socket,)
milliseconds to the next retransmission."""
_ANY_SOCKET: Final = struct.pack("=32x4xII", 0xFFFFFFFF, 0xFFFFFFFF)
"""Both addresses, the interface, and the cookie that means "none" (INET_DIAG_NOCOOKIE)."""

_RETRANSMITTED_AFTER: Final = 1.0
"""Seconds from the server's SYN-ACK to its first repetition (`TCP_TIMEOUT_INIT`)."""

_TICK: Final = 0.02
"""Seconds by which the kernel's timers may be off: two ticks of the slowest clock it has."""

_READ_SIZE: Final = 65536


class Handshakes:
    """The handshakes that were under way when the listeners stopped accepting new ones.

    Args:
        listeners: those that accept no new handshakes.
        round_trip_time: as for `close_listeners`.
    """

    def __init__(self, listeners: Sequence[socket.socket], round_trip_time: float) -> None:
        self._listeners = [each for each in listeners if each.family != socket.AF_UNIX]
        self._round_trip_time = round_trip_time
        self._began = monotonic()

    def may_be_under_way(self) -> bool:
        """Return True if one of them may still become a connection."""
        if not self._listeners:
            return False
        elapsed = monotonic() - self._began
        if elapsed < SHORTEST_WAIT:
            return True
        return elapsed < LONGEST_WAIT and self._is_expected(elapsed)

    def _is_expected(self, elapsed: float) -> bool:
        try:
            with HandshakeTable() as table:
                return any(
                    table.any_under_way(each, for_at_least=elapsed) for each in self._listeners
                )
        except OSError:
            return elapsed < (ROUND_TRIPS * self._round_trip_time or DEFAULT_WAIT)


class HandshakeTable:
    """The kernel's table of handshakes. Use as a context manager. Never blocks.

    Raises:
        OSError: such a socket cannot be opened.
    """

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError(errno.EAFNOSUPPORT, "sock_diag is Linux'")
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def any_under_way(self, listener: socket.socket, *, for_at_least: float) -> bool:
        """Return True while a client's handshake with *listener* has begun and is not over.

        Handshakes that have begun in the last *for_at_least* seconds do not count. Another server
        may listen on the same port, by SO_REUSEPORT or on another address, and get new ones for
        ever.

        Raises:
            OSError: the kernel does not answer.
        """
        port = listener.getsockname()[1]
        return any(age >= for_at_least - _TICK for age in self._ages(listener.family, port))

    def _ages(self, family: int, port: int) -> list[float]:
        """Return the least age of each handshake with *port*, in seconds."""
        which = struct.pack("!HH", port, 0) + _ANY_SOCKET
        asked = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _SYN_RECEIVED) + which
        length = _HEADER.size + len(asked)
        self._socket.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + asked)
        ages = []
        for message in self._messages():
            # The kernel has no time at which a handshake began, only the time that is left until it
            # repeats its SYN-ACK. After the first repetition a second has passed at the least.
            *_, repetitions, expires = _MESSAGE.unpack_from(message)
            ages.append(_RETRANSMITTED_AFTER - (0.0 if repetitions else expires / 1000))
        return ages

    def _messages(self) -> Iterator[memoryview]:
        while True:
            # The kernel adds the next part as one is read, so no read has to wait.
            data = memoryview(self._socket.recv(_READ_SIZE))
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", data, _HEADER.size)
                    raise OSError(-code, os.strerror(-code))
                yield data[_HEADER.size : length]
                data = data[(length + 3) & ~3 :]  # NLMSG_ALIGN: each begins at a multiple of 4
