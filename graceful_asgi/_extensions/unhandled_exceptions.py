"""Stops the server when an exception is raised that nobody handles: `drain_on_unhandled_exception`.

What a request handler raises is handled, by the server. What ends a thread or a task that nobody
waits for is heard by two hooks, of the event loop and of `threading`. Both pass it on to whatever
was there before.
"""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final

from .. import log
from ..event_loop import running_asyncio_loop
from ..report import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._core.runner import DrainRunner
    from ..phase import PhaseChange

LONGEST: Final = 200
"""Characters of an exception that are quoted. It stands in every line about the drain."""

_ASYNCIO: Final = os.path.join(os.path.dirname(asyncio.__file__), "")

_CONNECTION: Final = frozenset(("transport", "protocol", "socket", "asyncgen"))


def stop_on_unhandled_exception(drainer: DrainRunner) -> UnhandledExceptions | None:
    """Return an extension that listens for exceptions, where the policy asks for it."""
    if not drainer.policy.drain_on_unhandled_exception:
        return None
    return UnhandledExceptions(drainer)


class UnhandledExceptions:
    """Listens for exceptions that nobody handles, until closed. Lives on the event loop."""

    def __init__(self, drainer: DrainRunner) -> None:
        self._drainer = drainer
        self._loop = running_asyncio_loop()
        # Bound methods are made anew at each look: these are what is compared with.
        self._loop_handler = self._heard_by_loop
        self._thread_hook = self._heard_by_threading
        if self._loop is not None:
            self._former_handler = self._loop.get_exception_handler()
            self._loop.set_exception_handler(self._loop_handler)
        self._former_hook: Callable[[Any], object] = threading.excepthook
        threading.excepthook = self._thread_hook

    def opened(self) -> None:
        """Change nothing: exceptions count from the start of the server on."""

    def phase_changed(self, change: PhaseChange) -> None:
        """Change nothing: a drain that is under way is not begun again."""

    def closed(self) -> None:
        """Put back what was there, unless somebody else has come after."""
        loop = self._loop
        if loop is not None and loop.get_exception_handler() is self._loop_handler:
            loop.set_exception_handler(self._former_handler)
        if threading.excepthook is self._thread_hook:
            threading.excepthook = self._former_hook

    def _heard_by_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if counts(context):
            self._stop(context["exception"])
        if self._former_handler is not None:
            self._former_handler(loop, context)
        else:
            loop.default_exception_handler(context)

    def _heard_by_threading(self, args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, Exception):
            self._stop(args.exc_value)
        self._former_hook(args)

    def _stop(self, exc: Exception) -> None:
        """Stop the server, from any thread. Raises nothing."""
        drainer, reason = self._drainer, f"unhandled exception: {_quoted(exc)}"
        if drainer.server is not None:
            drainer.server.stop(reason, failed=True)
        elif drainer.begin(reason):
            drainer.notifier.post(
                lambda: log.caution(
                    "this server cannot be stopped from here: it drains, and waits for a stop"
                )
            )


def counts(context: Mapping[str, Any]) -> bool:
    """Say whether what an event loop tells its exception handler is an app's own failure.

    That is a task that failed and that nobody waited for, or a callback. What names a transport or
    a protocol, or was raised in one, is a connection's affair (a reset, a failed handshake, a
    protocol's own bug), and a bare future is a library's: those stop no server.
    """
    exc = context.get("exception")
    if not isinstance(exc, Exception) or _CONNECTION & context.keys():
        return False
    if "handle" in context:
        return not _raised_in_connection(exc)
    return isinstance(context.get("future") or context.get("task"), asyncio.Task)


def _raised_in_connection(exc: Exception) -> bool:
    """Say whether the callback that raised was a transport's or a protocol's.

    uvloop's handles do not show what they call. The traceback does: after the loop's own frames the
    callback comes first. (Further in there may be a protocol in anybody's task.)
    """
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, (asyncio.BaseTransport, asyncio.BaseProtocol)):
            return True
        filename = frame.f_code.co_filename
        if not filename.startswith(_ASYNCIO) and not filename.endswith(".pyx"):  # uvloop's
            return False
    return False


def _quoted(exc: Exception) -> str:
    try:
        text = repr(exc)
    except Exception:  # its own `__repr__` is broken; the log has its traceback
        text = type(exc).__name__
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
