"""`SignalWatch`: warns, while a server serves, where a stop will not reach it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from .. import log
from .signal_handlers import callbacks_of, name_handler, reaches, server_of

if TYPE_CHECKING:
    from .touchpoints import Server

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

TICKS: Final = 10
"""Of uvicorn's ticks, between two looks: a second."""


class SignalWatch:
    """Looks at who handles the signals of a stop. Lives on the server's loop.

    Libraries put handlers of their own in the place of uvicorn's at any time: at their import, as
    the app starts, at the first request. The server then serves on until it is killed.

    Args:
        server: the server.
        in_main_thread: uvicorn handles signals in the main thread only.
    """

    def __init__(self, server: Server, *, in_main_thread: bool) -> None:
        self._server = server
        self._in_main_thread = in_main_thread
        self._seen: dict[int, Any] = {}
        """The handlers that were looked at already."""
        self._ticks = 0

    def tick(self) -> None:
        """Look every second. Call it about every 0.1 s."""
        self._ticks = (self._ticks + 1) % TICKS
        if not self._ticks:
            self.look()

    def look(self) -> None:
        """Warn about each new handler that keeps a signal from the server."""
        for signum in SIGNALS:
            handler = signal.getsignal(signum)
            if signum in self._seen and self._seen[signum] == handler:
                continue
            self._seen[signum] = handler
            if server_of(handler) is not None:
                continue  # another server's, perhaps: a signal stops all of them
            if not self._in_main_thread:
                self._look_from_thread(signum, handler)
            elif not reaches(callbacks_of(signum, handler), self._server):
                self._warn(signum, handler)

    def _look_from_thread(self, signum: int, handler: object) -> None:
        if signum == signal.SIGTERM and handler is signal.SIG_DFL:
            log.caution(
                "this server runs in a thread, and nobody handles SIGTERM: it ends the process at "
                "once, with everything in flight. Install a handler in the main thread that sets "
                "server.should_exit = True, and join the thread before the program ends"
            )

    def _warn(self, signum: int, handler: object) -> None:
        callbacks = [name_handler(each) for each in callbacks_of(signum, handler)[:1]]
        log.caution(
            "%s goes to %s, which has taken the place of uvicorn's handler: this server will not "
            "drain by it. Have that handler call the one it has replaced, or set "
            "server.should_exit = True; or install it before the server starts, then uvicorn "
            "raises the signal again after the drain",
            signal.Signals(signum).name,
            *callbacks,
        )
