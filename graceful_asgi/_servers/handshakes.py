"""Asks the kernel which TCP handshakes are under way, by netlink's sock_diag(7). Linux only.

No privilege is needed. Some containers forbid this kind of socket: then `HandshakeTable` raises.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x001 | 0x300
_DONE, _ERROR = 3, 2
_SYN_RECEIVED: Final = 1 << 3
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI")
_MESSAGE: Final = struct.Struct("=BBBB 48x I")
"""Family, state, timer, retransmissions, (which socket,) milliseconds to the next one."""
_ANY_SOCKET: Final = struct.pack("=32x4xII", 0xFFFFFFFF, 0xFFFFFFFF)
"""Both addresses, the interface, and the cookie that means "none" (INET_DIAG_NOCOOKIE)."""

_RETRANSMITTED_AFTER: Final = 1.0
"""Seconds from the server's SYN-ACK to its first repetition (`TCP_TIMEOUT_INIT`)."""

_TICK: Final = 0.02
"""Seconds by which the kernel's timers may be off: two ticks of the slowest clock it has."""

_READ_SIZE: Final = 65536


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
                data = data[(length + 3) & ~3 :]
