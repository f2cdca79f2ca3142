"""`OwnMethods`: uvicorn's own methods of a server, whose places a hook takes for one `serve()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .signals import CapturedSignals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .touchpoints import Lifespan, Server


class OwnMethods:
    """The methods that the server had before it was hooked."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lifespan: Lifespan = server.lifespan
        self.shutdown: Callable[..., Awaitable[None]] = server.shutdown
        self.main_loop: Callable[[], Awaitable[None]] = server.main_loop
        self.on_tick: Callable[[int], Awaitable[bool]] = server.on_tick

    @property
    def serves_anew(self) -> bool:
        """True if the program has called `serve()` of the same server again.

        Each `Server._serve` begins with a new lifespan object. A program may set `should_exit` back
        and start its server once more; the hook belongs to the `serve()` before.
        """
        return self._server.lifespan is not self._lifespan

    def put_back(self) -> None:
        """Put the methods back in their places, and a plain list of the signals not handled yet."""
        server, captured = self._server, self._server._captured_signals
        server.shutdown, server.main_loop, server.on_tick = (
            self.shutdown,
            self.main_loop,
            self.on_tick,
        )
        if isinstance(captured, CapturedSignals):
            server._captured_signals = captured.unhandled  # itself: a signal may come at any time
