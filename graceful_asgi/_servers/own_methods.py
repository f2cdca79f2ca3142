"""`OwnMethods`: uvicorn's own methods of a server, whose places a hook takes for one `serve()`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .pause import end_pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .touchpoints import Server, Sockets


class OwnMethods:
    """The methods that the server had before it was hooked: of its class, or of another tool."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._shutdown: Callable[..., Awaitable[None]] = server.shutdown
        self.main_loop: Callable[[], Awaitable[None]] = server.main_loop
        self.on_tick: Callable[[int], Awaitable[bool]] = server.on_tick

    def put_back(self) -> None:
        """Put the methods back in their places."""
        server = self._server
        server.shutdown, server.main_loop, server.on_tick = (
            self._shutdown,
            self.main_loop,
            self.on_tick,
        )

    async def shutdown(self, sockets: Sockets | None) -> None:
        """Shut down as uvicorn does without this package."""
        await self._shutdown(sockets=sockets)

    async def shutdown_with_nothing_left(self, sockets: Sockets | None) -> None:
        """Do the same, for a server with nothing left: it runs lifespan.shutdown."""
        server, state = self._server, self._server.server_state
        # uvicorn must not wait for what is left, whose time is over: a handler that swallows its
        # cancellation, silent TLS handshakes (`Server.wait_closed` waits for those from Python 3.12
        # on), a connection that cannot close (it raises in uvicorn's loop over the connections).
        kept = server.servers, state.connections, state.tasks
        server.servers, state.connections, state.tasks = [], set(), set()
        server.force_exit = False  # else uvicorn skips lifespan.shutdown
        # It sleeps for its connections to close, and they are closed.
        asyncio.get_running_loop().call_soon(end_pause, asyncio.current_task())
        try:
            await self.shutdown(sockets)
        finally:
            server.servers, state.connections, state.tasks = kept
