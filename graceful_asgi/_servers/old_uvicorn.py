"""Does for a drain what uvicorn before 0.29 leaves out.

In those releases the event loop runs the signal handler, at its next turn, and the signal is
forgotten: with a blocked loop nothing stops, SIGINT looks like SIGTERM, and the process exits with
0 whatever was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from .. import log
from .signal_handlers import UVICORNS, callbacks_of, reaches
from .signals import is_ours

if TYPE_CHECKING:
    from .signals import HookedServer
    from .touchpoints import Server


def raises_signals_anew(server: Server) -> bool:
    """Return True if *server* is uvicorn 0.29 or newer, which raises signals again at its end."""
    return hasattr(server, "capture_signals")


def take_signals(hook: HookedServer) -> None:
    """Replace the handlers that the event loop runs for *hook*'s server by plain ones.

    A program that handles its signals itself keeps its handlers.
    """
    loop = asyncio.get_running_loop()
    version = getattr(sys.modules.get("uvicorn"), "__version__", "")
    log.caution(
        "uvicorn %s: after a drain the program's own signal handlers are not called; that needs "
        "uvicorn 0.29",
        version,
    )
    for signum in UVICORNS:
        handler = signal.getsignal(signum)
        if reaches(callbacks_of(signum, handler), hook.server):
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signum)
            signal.signal(signum, hook.captured.handle)


def end_serve(hook: HookedServer) -> None:
    """Give the process its exit code. Call it as `serve()` ends.

    Raises:
        SystemExit: the drain was forced, or an exception that nobody handled was the cause.
    """
    for signum in UVICORNS:
        if is_ours(signal.getsignal(signum)):
            default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            signal.signal(signum, default)
    hook.process.signals_to_raise(hook)  # called for its SystemExit only
