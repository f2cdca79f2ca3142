"""The loss-free listener close: from accepting to not accepting, without losing a connection.

A plain `close()` throws away every connection that the kernel has completed and nobody has
accepted yet; under load that is a request or more at each stop. Here the listening descriptor is
duplicated first, so that it outlives the server's close and its queue can be accepted to the end.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Final

from .. import journal

if TYPE_CHECKING:
    from collections.abc import Sequence

ACCEPT_PERIOD: Final = 0.25
"""Seconds to go on accepting at the most, should connections come in as fast as they are taken."""


async def close_listeners(servers: Sequence[asyncio.base_events.Server]) -> list[socket.socket]:
    """Close the listeners of *servers*; return the connections that were still in their queues.

    Works on asyncio and uvloop, for TCP and UNIX sockets. The sockets returned are non-blocking
    and belong to the caller.
    """
    listeners = [
        socket.fromfd(listening.fileno(), listening.family, listening.type)
        for server in servers
        for listening in server.sockets
    ]
    await _finish_accepting(listeners, servers)
    # No await from here on: what arrives in between waits in the queue that is emptied last.
    for server in servers:
        server.close()
    return [connection for listener in listeners for connection in _accept_all(listener)]


async def _finish_accepting(
    listeners: Sequence[socket.socket], servers: Sequence[asyncio.base_events.Server]
) -> None:
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


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Empty the queue of *listener*, and close it the instant it is empty."""
    accepted: list[socket.socket] = []
    listener.setblocking(False)
    deadline = time.monotonic() + ACCEPT_PERIOD
    with listener:
        while time.monotonic() < deadline:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                break
            except ConnectionAbortedError:
                continue  # the client has left the queue
            except OSError as exc:  # out of descriptors: what is left in the queue is lost
                journal.caution("accepting at the listener close failed: %s", exc)
                break
            connection.setblocking(False)
            accepted.append(connection)
    return accepted
