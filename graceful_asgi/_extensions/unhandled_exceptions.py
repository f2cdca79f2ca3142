"""Stops the server when an exception is raised that nobody handles: `drain_on_unhandled_exception`.

The server handles what a request handler raises. An exception that ends a thread, a callback, or a
task that nobody waits for goes to the exception handler of the event loop or to
`threading.excepthook`. This extension replaces both, and passes each exception on to the former
handler.
"""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final

from .. import log
from .._core.server_adapter import ServerEvents
from ..event_loop import running_asyncio_loop
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._core.runner import DrainRunner

LONGEST: Final = 200
"""The characters of an exception to quote: every line about the drain has the reason."""

_ASYNCIO: Final = os.path.join(os.path.dirname(asyncio.__file__), "")

_CONNECTION: Final = frozenset(("transport", "protocol", "socket", "asyncgen"))


class UnhandledExceptions(ServerEvents):
    """Takes the exceptions that nobody handles, until closed. Lives on the event loop."""

    def __init__(self, drainer: DrainRunner) -> None:
        self._drainer = drainer
        self._loop = running_asyncio_loop()
        # Each access to a method makes a new object; `closed` compares by identity.
        self._loop_handler = self._handle_in_loop
        self._thread_hook = self._handle_in_thread
        if self._loop is not None:
            self._former_handler = self._loop.get_exception_handler()
            self._loop.set_exception_handler(self._loop_handler)
        self._former_hook: Callable[[Any], object] = threading.excepthook
        threading.excepthook = self._thread_hook

    def closed(self) -> None:
        """Put the former handlers back, unless others have replaced ours since."""
        loop = self._loop
        if loop is not None and loop.get_exception_handler() is self._loop_handler:
            loop.set_exception_handler(self._former_handler)
        if threading.excepthook is self._thread_hook:
            threading.excepthook = self._former_hook

    def _handle_in_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if is_failure_of_app(context):
            self._stop(context["exception"])
        if self._former_handler is not None:
            self._former_handler(loop, context)
        else:
            loop.default_exception_handler(context)

    def _handle_in_thread(self, args: threading.ExceptHookArgs) -> None:
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
                    "an app cannot stop this server: it drains, and waits for a stop from outside"
                )
            )


def is_failure_of_app(context: Mapping[str, Any]) -> bool:
    """Return True if the context of an event loop's exception handler is a failure of the app.

    That is a failed task that nobody waited for, or a failed callback. A context that names a
    transport or a protocol concerns one connection (a reset, a failed handshake), and so does an
    exception that one of them raised. A bare future belongs to a library. Those stop no server.
    """
    exc = context.get("exception")
    if not isinstance(exc, Exception) or _CONNECTION & context.keys():
        return False
    if "handle" in context:
        return not _raised_in_connection(exc)
    return isinstance(context.get("future") or context.get("task"), asyncio.Task)


def _raised_in_connection(exc: Exception) -> bool:
    """Return True if the callback that raised was a method of a transport or of a protocol.

    uvloop's handles do not show what they call, but the traceback does: the first frame after those
    of the loop is the callback. (A later frame may be a protocol in the task of an app.)
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
    except Exception:  # a broken `__repr__`; the log has the traceback
        text = type(exc).__name__
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
