"""What a drain asks of a uvicorn server, done: close the listener, sweep, cut. Decides nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from .. import log
from .connections import Connections
from .listener import close_listeners, end_deafness
from .shared_sockets import SharedSockets, may_have_siblings

if TYPE_CHECKING:
    import socket

    from .touchpoints import Server

HANDSHAKE_PERIOD: Final = 1.0
"""Seconds for TLS handshakes that are under way as the listener closes. Nobody can see them:
their connections appear when they are done."""


class UvicornAdapter:
    """The `Edge` of one uvicorn server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections = Connections(server)
        self._taking: set[asyncio.Task[Any]] = set()
        self._settled_at = 0.0
        self._siblings: SharedSockets | None = None
        self._ends_deafness = False
        # A socket that came from somewhere may be going on elsewhere: sibling workers, the
        # successor in a socket activation.
        self._shared = server.config.fd is not None or server.config.reload

    def start_listening(self) -> None:
        """Note that the listeners are about to accept, where that can be known.

        A worker before this one may have left them deaf.
        """
        if may_have_siblings(self._server):
            self._ends_deafness = True
            end_deafness(self._server.servers)

    def share_sockets(self, *, stopped_by_signal: bool) -> None:
        """Note that the server was started with sockets that somebody else has made."""
        self._shared = True
        # Workers that stop of their own accord, all at once even, are followed by others. So may be
        # those that are told to; without a lifespan these see no request before they can hear one.
        if stopped_by_signal and self._ends_deafness:
            listening = [each for server in self._server.servers for each in server.sockets]
            self._siblings = SharedSockets(listening)
            self._siblings.leave_word()

    def _is_last(self) -> bool:
        """Say whether nobody else goes on with the listening sockets."""
        if not self._shared or getattr(self._server, "service_stops", False):
            return True  # a parent of ours says so
        return self._siblings is not None and self._siblings.all_leave()

    async def close_listener(self) -> None:
        """Close every listener, and take over what its queue holds."""
        async for connection in close_listeners(self._server.servers, is_last=self._is_last):
            task = asyncio.ensure_future(self._take(connection))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)
        if self._server.config.ssl is not None:
            self._settled_at = asyncio.get_running_loop().time() + HANDSHAKE_PERIOD

    async def _take(self, connection: socket.socket) -> None:
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
                ssl_handshake_timeout=None if config.ssl is None else HANDSHAKE_PERIOD,
            )
        except (OSError, asyncio.CancelledError) as exc:  # a failed handshake is an OSError
            log.detail("a connection from the accept queue has gone: %r", exc)
            connection.close()

    def sweep(self) -> None:
        """Close what has been idle long enough. Call it every 0.1 s or so."""
        self._connections.sweep()

    def is_idle(self) -> bool:
        """Say whether no connection is open or under way, and no ASGI call running."""
        if self._connections or self._taking or self._server.server_state.tasks:
            return False
        return asyncio.get_running_loop().time() >= self._settled_at

    def cut_answers(self) -> int:
        """Reset what has a part of its answer out; return how many were only being flushed."""
        return self._connections.cut_answers()

    def cut_connections(self) -> None:
        """Reset whatever is left."""
        for task in self._taking:
            task.cancel()
        self._connections.cut()
