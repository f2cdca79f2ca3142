"""Asks the kernel about sockets, and sets options on them.

Nothing here opens a descriptor: a process that has none left still has to close its connections.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .touchpoints import Transport

_LAST_DATA_SENT: Final = 44
"""The offset of `tcpi_last_data_sent` in Linux' `struct tcp_info` (linux/tcp.h): milliseconds."""

_LAST_DATA_RECV: Final = 52
"""The offset of `tcpi_last_data_recv` in it: milliseconds."""

_UNACKED: Final = 24
"""The offset of `tcpi_unacked` in it. Of a listener: the length of its accept queue."""

_RTT: Final = 68
"""The offset of `tcpi_rtt` in it: microseconds, smoothed."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""`struct linger`: switched on, zero seconds."""

_SO_BINDTOIFINDEX: Final = 62
"""Linux 5.1 (asm-generic/socket.h). Python's socket module does not name it."""

_NO_INTERFACE: Final = 2**31 - 1
"""The number of an interface that does not exist."""

_MIN_TTL: Final = ((socket.IPPROTO_IP, 21), (socket.IPPROTO_IPV6, 73))
"""`IP_MINTTL` and `IPV6_MINHOPCOUNT` of Linux, which Python's socket module does not name."""


@contextlib.contextmanager
def borrowed(stand_in: socket.socket | None) -> Iterator[socket.socket]:
    """Yield a whole `socket.socket` for the length of a block. The loop keeps the descriptor.

    asyncio and uvloop hand out objects that can do less: asyncio's has no `recv`, uvloop's only has
    its descriptor.

    Raises:
        OSError: there is none, or it is closed.
    """
    if stand_in is None or (descriptor := stand_in.fileno()) < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    sock = socket.socket(stand_in.family, stand_in.type, stand_in.proto, fileno=descriptor)
    try:
        yield sock
    finally:
        sock.detach()


def _socket_of(transport: Transport) -> contextlib.AbstractContextManager[socket.socket]:
    try:
        return borrowed(transport.get_extra_info("socket"))
    except AttributeError:
        # asyncio's TLS transport forgets its connection when it is closed a second time, open or
        # not (`_SSLProtocolTransport.close`). uvicorn does so where it refuses a WebSocket.
        return borrowed(None)


def reset_on_close(transport: Transport) -> None:
    """Make the kernel send a reset instead of an end of file when *transport* is closed.

    An end of file would make a body without a length look complete.
    """
    with contextlib.suppress(OSError), _socket_of(transport) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def has_unread_bytes(transport: Transport) -> bool:
    """Return True if the kernel holds bytes that the loop has not read: the next request."""
    try:
        with _socket_of(transport) as sock:
            return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:  # nothing to read (the socket does not block), or nothing to read from
        return False


def silent_for(transport: Transport) -> float:
    """Return the seconds since bytes came in last; infinite if the system does not show that."""
    milliseconds = _tcp_info(transport, _LAST_DATA_RECV)
    return math.inf if milliseconds is None else milliseconds / 1000


def idle_for(transport: Transport) -> float:
    """Return the seconds since bytes came in or went out last; infinite as for `silent_for`."""
    milliseconds = _tcp_info(transport, _LAST_DATA_SENT)
    sent = math.inf if milliseconds is None else milliseconds / 1000
    return min(sent, silent_for(transport))


def round_trip_time(transport: Transport) -> float:
    """Return the seconds that a packet and its answer take; 0 if the system does not show that."""
    microseconds = _tcp_info(transport, _RTT)
    return 0.0 if microseconds is None else microseconds / 1_000_000


def accept_queue_length(listener: socket.socket) -> int:
    """Return how many connections wait for an `accept()`; 0 if the system does not show that."""
    with contextlib.suppress(OSError):  # closed, or a UNIX socket
        return _tcp_info_of(listener, _UNACKED)
    return 0


def _tcp_info(transport: Transport, offset: int) -> int | None:
    try:
        with _socket_of(transport) as sock:
            return _tcp_info_of(sock, offset)
    except OSError:  # closed, or a UNIX socket
        return None


def _tcp_info_of(sock: socket.socket, offset: int) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, offset + 4)
    value: int = struct.unpack_from("I", info, offset)[0]
    return value


def refuse_new_connections(listener: socket.socket) -> bool:
    """Make the kernel refuse new connections from now on; return False if it cannot.

    A client gets the answer of a closed port, at once. Connections in the accept queue and
    handshakes that are under way are not touched. Idempotent.

    TCP: the listener is bound to an interface that does not exist. The kernel compares a listener's
    interface when it looks one up for a new handshake (`compute_score` in inet_hashtables.c); a
    handshake under way keeps its own (`ireq->ir_iif`), and so does the connection that results. No
    privilege is needed for a socket that is not bound to an interface yet (Linux 5.7).

    UNIX: `connect()` is refused by a listener that is shut down for reading (`unix_stream_connect`
    in af_unix.c); `accept()` still returns what is in the queue. That cannot be undone.
    """
    if sys.platform != "linux":
        return False
    try:
        if listener.family == socket.AF_UNIX:
            listener.shutdown(socket.SHUT_RD)
        # A second worker may not bind the socket again, and does not have to.
        elif listener.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX) != _NO_INTERFACE:
            listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
    except OSError:  # an older kernel, or a listener that is bound to an interface
        return False
    return True


def can_be_undone(listener: socket.socket) -> bool:
    """Return True if this process, and so the next one, could undo `refuse_new_connections`.

    That takes CAP_NET_RAW in the network namespace. The root of a container has it by default.
    """
    if listener.family == socket.AF_UNIX:
        return False
    try:
        with socket.socket(listener.family, listener.type) as probe:
            for interface in (_NO_INTERFACE, 0):
                probe.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, interface)
    except OSError:
        return False
    return True


def drop_new_connections(listener: socket.socket) -> bool:
    """Make the kernel drop the packets of new connections; return False if it cannot.

    The last packet of a handshake under way is not dropped (`tcp_v4_rcv` checks the TTL after
    that). But the resulting connection inherits the limit, and `lift_limits` has to lift it. It
    takes no privilege to set the limit or to undo it.
    """
    return _set_min_ttl(listener, 255)


def lift_limits(sock: socket.socket) -> None:
    """Undo the two above, on a listener or on a connection that was accepted from it."""
    _set_min_ttl(sock, 0)
    with contextlib.suppress(OSError):
        if sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX) == _NO_INTERFACE:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, 0)


def _set_min_ttl(sock: socket.socket, ttl: int) -> bool:
    """Set the TTL below which packets are dropped; return False if *sock* takes none.

    An IPv6 socket takes both options: it may carry IPv4 as well.
    """
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return False
    taken = False
    for level, option in _MIN_TTL:
        with contextlib.suppress(OSError):  # the other family
            sock.setsockopt(level, option, ttl)
            taken = True
    return taken
