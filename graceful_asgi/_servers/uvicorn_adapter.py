"""`UvicornAdapter`: closes the listener and the connections of a uvicorn server for a drain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from .. import log
from .connections import Connections
from .descriptors import SpareDescriptors
from .finder import has_given_sockets
from .idle_watch import IdleWatch
from .listener import AcceptQueue, accept_again, close_listeners
from .shared_sockets import Markers, SharedSockets, may_have_siblings
from .socket_file import SocketFile, take_over_removal

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ..types import Scope
    from .listener import Others
    from .touchpoints import Server

HANDSHAKE_PERIOD: Final = 1.0
"""Seconds for TLS handshakes that are under way as the listener closes, plus a few round trips.
Such a handshake is invisible until it is done: only then does uvicorn have the connection."""

HANDSHAKE_ROUND_TRIPS: Final = 4

SPARE_DESCRIPTORS: Final = 4
"""The number of descriptors to put aside: one for each listener. `localhost` alone has two."""


class UvicornAdapter:
    """The `ServerAdapter` of one uvicorn server.

    It calls *wake*, which has to be idempotent, when `is_idle` may have become True.
    """

    def __init__(self, server: Server, wake: Callable[[], object]) -> None:
        self._server = server
        self._wake = wake
        self._idle_watch = IdleWatch(server, wake)
        self.connections = Connections(server)
        self._spare = SpareDescriptors()
        self._markers: Markers | None = None
        self._siblings: SharedSockets | None = None
        self._closing: asyncio.Task[None] | None = None
        self._accept_queue = AcceptQueue()
        self._taking: set[asyncio.Task[Any]] = set()
        self._settled_at = 0.0
        self.socket_file: SocketFile | None = None
        # A socket from outside may be served by other processes as well: by sibling workers, or by
        # the next server in a socket activation.
        self._shared = (
            server.config.fd is not None or server.config.reload or has_given_sockets(server)
        )

    def put_aside(self, scope: Scope) -> None:
        """Open what a stop will need, while the process still has free descriptors.

        *scope* is the one that the server was found by. In a worker, do not call it on the event
        loop: it reads /proc.
        """
        self._spare.put_aside(SPARE_DESCRIPTORS)
        # A worker may leave behind a listener that drops new connections; the next worker lifts
        # that as it starts (`start_listening`). A worker that is hooked by its first request could
        # not: no request would reach it. So such workers have no markers, and drop nothing.
        if scope["type"] == "lifespan" and may_have_siblings(self._server):
            self._markers = Markers()

    def give_back(self) -> None:
        """Close what was put aside and is not needed any more. Idempotent."""
        self._spare.close()
        if self._markers is not None:  # markers that are set stay until the process ends
            self._markers.give_back()

    def start_listening(self) -> None:
        """Lift the limits that a worker before this one may have set on the listeners."""
        # Where the task of `serve()` shows no frames, the caller's are those of `main_loop`.
        self._shared = self._shared or has_given_sockets(self._server)
        if self._markers is not None:
            accept_again(self._server.servers)
        path = self._server.config.uds
        if path is not None:
            self.socket_file = SocketFile(path)

    def note_signal(self) -> None:
        """Show the siblings that a signal stops this worker. Safe in a signal handler.

        A worker that stops by itself (`limit_max_requests`) is replaced by its parent, so it sets
        no marker: its siblings count it as serving.
        """
        if self._markers is not None:
            self._markers.set("stopping")

    def share_sockets(self, *, stopped_by_signal: bool) -> None:
        """Note that the server was started with sockets that were made outside of it."""
        self._shared = True
        if stopped_by_signal and self._markers is not None:
            listening = [each for server in self._server.servers for each in server.sockets]
            self._siblings = SharedSockets(listening)

    def _others(self) -> Others:
        """Return what other processes do with the listening sockets."""
        # `graceful-asgi run` sets `service_stops` when the whole service stops.
        if not self._shared or getattr(self._server, "service_stops", False):
            return "never"
        if self._siblings is None or self._markers is None:
            return "serve"
        self._markers.set("closed")
        return self._siblings.others()

    async def close_listener(self) -> None:
        """Begin to close every listener. Until that is done `is_idle` returns False."""
        self._closing = asyncio.ensure_future(self._close_listener())
        self._closing.add_done_callback(lambda task: self._wake())
        await asyncio.sleep(0)

    async def _close_listener(self) -> None:
        try:
            round_trip_time = self.connections.longest_round_trip()
            period = HANDSHAKE_PERIOD + HANDSHAKE_ROUND_TRIPS * round_trip_time
            if self._server.config.ssl is not None:
                loop = asyncio.get_running_loop()
                self._settled_at = loop.time() + period
                loop.call_at(self._settled_at, self._wake)
            async for connection in close_listeners(
                self._server.servers,
                self._spare,
                others=self._others,
                round_trip_time=round_trip_time,
                queue=self._accept_queue,
            ):
                task = asyncio.ensure_future(self._take(connection, period))
                self._taking.add(task)
                task.add_done_callback(self._taken)
        except OSError as exc:
            log.caution(
                "the listener is closed, and its accept queue could not be emptied: %s", exc
            )
        except Exception:
            log.failed("the loss-free listener close failed: the listener is closed at once")
        finally:
            for server in self._server.servers:
                server.close()
            if self.socket_file is not None and take_over_removal(self._server.config):
                self.socket_file.remove()

    def _taken(self, task: asyncio.Task[Any]) -> None:
        self._taking.discard(task)
        self._wake()

    async def _take(self, connection: socket.socket, handshake_period: float) -> None:
        server, config = self._server, self._server.config
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: config.http_protocol_class(
                    config=config,
                    server_state=server.server_state,
                    app_state=server.lifespan.state,
                    _loop=loop,
                ),
                connection,
                ssl=config.ssl,
                ssl_handshake_timeout=None if config.ssl is None else handshake_period,
            )
        except (OSError, asyncio.CancelledError) as exc:  # a failed handshake is an OSError
            log.detail("a connection from the accept queue has gone: %r", exc)
            connection.close()

    def is_idle(self) -> bool:
        """Return True if no connection is open or under way, and no ASGI call is running.

        After False the drain is woken when that may have changed.
        """
        if self._closing is not None and not self._closing.done():
            return False
        if self.connections or self._taking or self._server.server_state.tasks:
            self._idle_watch.watch_what_is_left()
            return False
        return asyncio.get_running_loop().time() >= self._settled_at

    def cut_answers(self) -> int:
        """Reset each response that is sent in part, and each connection that was never accepted.

        Return how many of them have no ASGI call.
        """
        never_accepted = 0
        if self._closing is not None and not self._closing.done():
            self._closing.cancel()
            # A sibling may still accept what waits in the queue of a shared socket.
            never_accepted = len(self._accept_queue) if self._others() == "never" else 0
        return never_accepted + self.connections.cut_answers()

    def cut_connections(self) -> None:
        """Reset whatever is left."""
        if self._closing is not None:
            self._closing.cancel()
        for task in self._taking:
            task.cancel()
        self.connections.cut()
        self.give_back()
