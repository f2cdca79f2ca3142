"""The loss-free listener close: from accepting to not accepting, without losing a connection.

A plain `close()` resets every connection that the kernel has completed and nobody has accepted yet,
and every handshake that is under way; under load that is a request or more at each stop. Here the
listening descriptor is duplicated first, so that it outlives the server's close. Then:

1. The kernel is told to let nobody in any more (`tcp.refuse_new_connections`, Linux).
2. Handshakes under way come to their end. The kernel shows whether there are any
   (`Handshakes`). If it does not, they get a few of the round trips that this server sees.
3. The accept queue is emptied into the server, and the listener closed in the same instant.

A socket that several processes share stays open when one of them closes its descriptor. So the last
process that accepts has to do this. It may do nothing that cannot be undone, because the parent has
the socket as well and may start another worker on it. Without a privilege a shared listener can
only drop new connections, not refuse them (`tcp.drop_new_connections`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING, Final, Literal

from .. import log
from .handshakes import Handshakes
from .tcp import (
    accept_queue_length,
    borrowed,
    can_be_undone,
    drop_new_connections,
    lift_limits,
    refuse_new_connections,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from .descriptors import SpareDescriptors

Others = Literal["never", "none", "serve", "undecided"]
"""Other processes and the listening sockets. "never": none will ever serve from them.
"none": none serves now, but one may be started. "serve": another process serves. "undecided": this
process goes on accepting until it is decided."""

POLL_PERIOD: Final = 0.01
"""Seconds between two looks into the queue."""

MAX_ACCEPTED: Final = 10_000
"""Connections taken in one go at the most. A full queue holds about 2000."""

_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)


async def close_listeners(
    servers: Sequence[asyncio.base_events.Server],
    spare: SpareDescriptors,
    *,
    others: Callable[[], Others] = lambda: "serve",
    round_trip_time: float = 0.0,
    queue: AcceptQueue | None = None,
) -> AsyncIterator[socket.socket]:
    """Close the listeners of *servers*; yield the connections that were still in their queues.

    Works on asyncio and uvloop, for TCP and UNIX sockets. The yielded sockets are non-blocking and
    belong to the caller. The listeners are closed when the last one has been yielded, or when the
    iterator is closed.

    Args:
        servers: as `loop.create_server` returns them.
        spare: the descriptors for the duplicates.
        others: returns what other processes do with the sockets. It is called until that is
            decided.
        round_trip_time: the longest that this server sees, in seconds; 0 where none is known.
        queue: the accept queue, for a caller that needs to know what is in it.

    Raises:
        OSError: there is no descriptor for a duplicate. Nothing has been closed.
    """
    sockets = [listening for server in servers for listening in server.sockets]
    listeners = spare.duplicates(sockets)
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        await _finish_accepting(servers)
        for server in servers:
            server.close()
        # uvloop calls `connection_made` one round after it has accepted. A drain that looked for
        # open connections before that would find none, and end.
        await asyncio.sleep(0)
        queue = AcceptQueue() if queue is None else queue
        queue.listen(listeners)
        while (decided := others()) == "undecided":
            for connection in queue.take():
                yield connection
            await asyncio.sleep(POLL_PERIOD)
        if decided != "serve":
            # No await between the answer and this: a worker that starts later lifts the limit.
            kept_out = [each for each in listeners if _keep_out(each, for_good=decided == "never")]
            handshakes = Handshakes(kept_out, round_trip_time)
            while handshakes.may_be_under_way() or queue.is_starved:
                for connection in queue.take():
                    yield connection
                await asyncio.sleep(POLL_PERIOD)
        # No await from here to the close: what arrives in between waits in the queue.
        last = queue.take()
    for connection in last:
        yield connection


def accept_again(servers: Iterable[asyncio.base_events.Server]) -> None:
    """Lift the limits that an earlier process has set on the listeners of *servers*."""
    for server in servers:
        for listening in server.sockets:
            with borrowed(listening) as listener:
                lift_limits(listener)


def _keep_out(listener: socket.socket, *, for_good: bool) -> bool:
    """Make the kernel accept no new handshakes; return False if it cannot."""
    may_refuse = for_good or can_be_undone(listener)
    return (may_refuse and refuse_new_connections(listener)) or drop_new_connections(listener)


async def _finish_accepting(servers: Iterable[asyncio.base_events.Server]) -> None:
    """Wait until asyncio has attached the connections to a server that it has accepted already.

    It does so in a task per connection, which fails when the server has closed before it runs.
    uvloop attaches as it accepts, and would go on to accept here.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        return
    _stop_accepting(loop, servers)
    # In the next turn of the loop the task (`_accept_connection2`) makes the transport, which the
    # server counts from then on. In the turn after that the loop calls `connection_made`, by which
    # uvicorn gets to know the connection.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    _stop_accepting(loop, servers)  # an attempt that failed meanwhile has set timers


def _stop_accepting(
    loop: asyncio.SelectorEventLoop, servers: Iterable[asyncio.base_events.Server]
) -> None:
    for server in servers:
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
    # Where no descriptor was free, asyncio has set a timer for each of 2048 attempts to accept
    # (`_accept_connection`, ACCEPT_RETRY_DELAY). Each would log a traceback on a closed socket. On
    # a busy machine those of the last tick may be due already: they are in `_ready` then.
    retry = getattr(loop, "_start_serving", None)
    for handle in (*getattr(loop, "_scheduled", ()), *getattr(loop, "_ready", ())):
        if getattr(handle, "_callback", None) == retry:
            handle.cancel()


class AcceptQueue:
    """The connections that the kernel has completed and nobody has accepted yet."""

    def __init__(self) -> None:
        self._listeners: Sequence[socket.socket] = ()
        self.is_starved = False
        """True while connections wait for a descriptor: requests that end give some back."""

    def listen(self, listeners: Sequence[socket.socket]) -> None:
        """Use *listeners*, from which nothing else in this process accepts."""
        self._listeners = listeners
        for listener in listeners:
            listener.setblocking(False)

    def __len__(self) -> int:
        """Return how many connections wait, as far as the system shows that."""
        return sum(accept_queue_length(listener) for listener in self._listeners)

    def take(self) -> list[socket.socket]:
        """Accept what there is."""
        accepted: list[socket.socket] = []
        was_starved, self.is_starved = self.is_starved, False
        for listener in self._listeners:
            while self._accept(listener, accepted):
                pass
        if self.is_starved and not was_starved:
            log.caution(
                "no file descriptor is free, so connections wait in the accept queue: raise the "
                "limit of open files (ulimit -n)"
            )
        return accepted

    def _accept(self, listener: socket.socket, accepted: list[socket.socket]) -> bool:
        """Accept one; return False if there is no other."""
        if len(accepted) >= MAX_ACCEPTED:
            log.caution("connections come faster than they are accepted: some are lost")
            return False
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True  # this client has gone; the next one may be there
        except OSError as exc:
            self.is_starved |= exc.errno in _OUT_OF_DESCRIPTORS
            if not self.is_starved:
                log.caution("accepting at the listener close failed: %s", exc)
            return False
        connection.setblocking(False)
        lift_limits(connection)  # it may have inherited those of its listener
        accepted.append(connection)
        return True
