"""`SignalWatch`: warns, while a server serves, if a signal would not stop it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from .. import log
from ..event_loop import monotonic
from .signal_handlers import callbacks_of, is_pythons_own, name_handler, reaches, server_of
from .signals import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from .signals import HookedServer

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

REACTION_PERIOD: Final = 1.0
"""Seconds for a handler to stop the server after a signal. A handler that the event loop runs comes
later, and a handler may only wake a task."""

_ADVICE: Final = (
    "Have it call the handler that it has replaced, or set server.should_exit = True. Or install "
    "it before the server starts: uvicorn raises the signal again after the drain"
)


class SignalWatch:
    """Watches the handlers of SIGTERM and SIGINT. Lives on the server's loop.

    A library may replace uvicorn's handler at any time: as the app starts, at the first request. If
    its handler does not stop the server, the server serves on until it is killed. If a handler has
    no reference to the server, that is certain, and a warning comes at once. Any other handler is
    wrapped: when a signal comes, it shows whether the handler stops the server. Outside of the main
    thread uvicorn handles no signal.
    """

    def __init__(self, hook: HookedServer) -> None:
        self._hook = hook
        self._known: dict[int, Any] = {}
        """The handlers that were looked at already."""
        self._observed: list[tuple[float, int, object]] = []
        """Each signal that came: the time, its number, and the handler that was called."""

    def tick(self) -> None:
        """Check the handlers, and whether signals have stopped the server. Call it every 0.1 s."""
        self.look()
        if self._observed and monotonic() >= self._observed[0][0] + REACTION_PERIOD:
            _, signum, handler = self._observed.pop(0)
            if not (self._hook.drainer.state.stopping or self._hook.server.should_exit):
                log.caution(
                    "%s goes to %s, which has not told this server to stop. %s",
                    signal.Signals(signum).name,
                    self._name(signum, handler),
                    _ADVICE,
                )

    def look(self) -> None:
        """Warn about each new handler that keeps a signal from the server."""
        for signum in SIGNALS:
            handler = signal.getsignal(signum)
            if self._known.get(signum) == handler:
                continue
            self._known[signum] = handler
            if server_of(handler) is not None or is_ours(handler):
                continue  # uvicorn's handler, of any server: a signal stops all servers
            if is_pythons_own(handler):
                continue  # nobody has taken anything: Ctrl+C cancels `serve()`
            if not self._hook.in_main_thread:
                self._look_from_thread(signum, handler)
            elif callable(handler) and reaches(callbacks_of(signum, handler), self._hook.server):
                self._observe(signum, handler)
            else:
                log.caution(
                    "uvicorn's handler of %s has been replaced by %s: the signal does not stop "
                    "this server. %s",
                    signal.Signals(signum).name,
                    self._name(signum, handler),
                    _ADVICE,
                )

    def _observe(self, signum: int, handler: Callable[..., object]) -> None:
        def observer(signum: int, frame: FrameType | None) -> object:
            self._observed.append((monotonic(), signum, handler))
            return handler(signum, frame)

        self._known[signum] = observer
        signal.signal(signum, observer)
        signal.siginterrupt(signum, False)  # as asyncio does for handlers that its loop runs

    def _look_from_thread(self, signum: int, handler: object) -> None:
        # A program that waits for its signals (`signal.sigwait`) blocks them in all of its threads.
        # A thread inherits that from the one that starts it.
        is_blocked = signum in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if signum == signal.SIGTERM and handler is signal.SIG_DFL and not is_blocked:
            log.caution(
                "this server runs in a thread, and nobody handles SIGTERM: it ends the process at "
                "once, with everything in flight. Handle it in the main thread: set "
                "server.should_exit = True, and join the thread"
            )

    def _name(self, signum: int, handler: object) -> str:
        return name_handler(callbacks_of(signum, handler)[0])
