"""The loss-free listener close: from accepting to not accepting, without losing a connection.

A plain `close()` throws away every connection that the kernel has completed and nobody has
accepted yet; under load that is a request or more at each stop. Here the listening descriptor is
duplicated first, so that it outlives the server's close and its queue can be accepted to the end.

What completes between the last `accept()` and the `close()` would still be lost, and so would
handshakes that are on the wire. On Linux a listener can be made deaf to new ones first: packets
that come with a TTL below `IP_MINTTL` are dropped, the last one of a handshake under way is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Final

from .. import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

DEAF_PERIOD: Final = 0.25
"""Seconds from deaf to closed: longer than the round trip of the handshakes under way."""

POLL_PERIOD: Final = 0.01
"""Seconds between two looks into the queue meanwhile."""

MAX_ACCEPTED: Final = 10_000
"""Connections taken in one go at the most. A full queue holds about 2000."""

_MIN_TTL: Final = ((socket.IPPROTO_IP, 21), (socket.IPPROTO_IPV6, 73))
"""`IP_MINTTL` and `IPV6_MINHOPCOUNT` of Linux, which Python's socket module does not name."""


async def close_listeners(
    servers: Sequence[asyncio.base_events.Server], *, is_last: Callable[[], bool] = lambda: False
) -> AsyncIterator[socket.socket]:
    """Close the listeners of *servers*; yield the connections that were still in their queues.

    Works on asyncio and uvloop, for TCP and UNIX sockets. The sockets are non-blocking and belong
    to the caller. The listeners are closed when the last one has been yielded.

    Args:
        servers: as `loop.create_server` returns them.
        is_last: says whether no other process goes on serving from the same sockets. Only then are
            they made deaf: that holds for every process that has them.
    """
    listeners = [
        socket.fromfd(listening.fileno(), listening.family, listening.type)
        for server in servers
        for listening in server.sockets
    ]
    await _finish_accepting(servers)
    for server in servers:
        server.close()
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        # No await between these two: whoever comes to the sockets later lets them hear again.
        deaf = [each for each in listeners if _set_min_ttl(each, 255)] if is_last() else []
        for _ in range(round(DEAF_PERIOD / POLL_PERIOD) if deaf else 0):
            for connection in _accept_all(listeners):
                yield connection
            await asyncio.sleep(POLL_PERIOD)
        # No await from here to the close: what arrives in between waits in the queue.
        last = _accept_all(listeners)
    for connection in last:
        yield connection


def end_deafness(servers: Iterable[asyncio.base_events.Server]) -> None:
    """Let the listeners of *servers* hear again, if whoever had them before has made them deaf."""
    for server in servers:
        for listening in server.sockets:
            with socket.fromfd(listening.fileno(), listening.family, listening.type) as listener:
                _set_min_ttl(listener, 0)


async def _finish_accepting(servers: Iterable[asyncio.base_events.Server]) -> None:
    """Let asyncio finish the connections it has accepted but not attached to a server yet.

    It does so in a task per connection, which fails when the server has closed before it runs.
    uvloop attaches as it accepts.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        return
    for server in servers:
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _accept_all(listeners: Iterable[socket.socket]) -> list[socket.socket]:
    """Empty the queues of *listeners*."""
    accepted: list[socket.socket] = []
    for listener in listeners:
        listener.setblocking(False)
        while True:
            if len(accepted) >= MAX_ACCEPTED:
                log.caution("connections come faster than they are accepted: some are lost")
                break
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                break
            except ConnectionAbortedError:
                continue  # the client has left the queue
            except OSError as exc:  # out of descriptors: what is left in the queue is lost
                log.caution("accepting at the listener close failed: %s", exc)
                break
            connection.setblocking(False)
            # Inherited from a deaf listener: without this the client would not be heard either.
            _set_min_ttl(connection, 0)
            accepted.append(connection)
    return accepted


def _set_min_ttl(sock: socket.socket, ttl: int) -> bool:
    """Set the TTL below which packets are dropped; say whether *sock* takes one.

    It needs no privilege. An IPv6 socket takes both: it may carry IPv4 as well.
    """
    if sys.platform != "linux":
        return False
    taken = False
    for level, option in _MIN_TTL:
        with contextlib.suppress(OSError):  # the other family, or not TCP at all
            sock.setsockopt(level, option, ttl)
            taken = True
    return taken
