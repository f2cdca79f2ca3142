"""`IdleWatch`: wakes a drain as soon as what it waits for at the server may have come to its end.

It watches one task, or one connection, of those that are left. When that ends, the drain looks
again, and the next is watched if there is one. So it costs nothing while serving, and little with
thousands of connections: those that close in one turn of the loop wake the drain once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .touchpoints import Connection, Server


class IdleWatch:
    """Watches what is left at one server, on its loop, and calls *wake* (which is idempotent)."""

    def __init__(self, server: Server, wake: Callable[[], object]) -> None:
        self._server = server
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    def watch_what_is_left(self) -> None:
        """Wake the drain when one of the tasks has ended, or one of the connections. Idempotent."""
        state = self._server.server_state
        if state.tasks:
            if self._task not in state.tasks:
                self._task = next(iter(state.tasks))
                # uvicorn has added its own callback before, which takes the task out of the set.
                self._task.add_done_callback(lambda task: self._wake())
        # An upgrade to a WebSocket takes a connection out of the set and puts another one in. The
        # ASGI call that it leads to wakes the drain at its end, so this looks again.
        elif state.connections and self._connection not in state.connections:
            self._connection = next(iter(state.connections))
            self._watch(self._connection)

    def _watch(self, connection: Connection) -> None:
        uvicorns = connection.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            try:
                uvicorns(exc)  # takes the connection out of the set
            finally:
                self._wake()

        connection.connection_lost = connection_lost  # type: ignore[method-assign]  # this one only
