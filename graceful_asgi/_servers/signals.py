"""How a uvicorn server hears of a signal, and how the process ends by it."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Protocol

from .. import log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from .touchpoints import Server


class SignalOwner(Protocol):
    """Who decides what a signal means. `UvicornHook` does."""

    def on_signal(self, signum: int) -> None:
        """Take a signal, in the signal handler."""

    @property
    def failed(self) -> bool:
        """Whether the process should end without a signal, because something has gone wrong."""

    def exit_code(self) -> int | None:
        """Return what the process should exit with; None while the drain is not over."""

    def release(self) -> None:
        """Let the process live."""


class CapturedSignals(list[int]):
    """`Server._captured_signals`: uvicorn's handler appends to it, and in the end raises it anew.

    Hearing the signal here, in the handler, begins the drain at once, even with the event loop
    blocked, and leaves uvicorn's handler where sse-starlette and others look for the server.

    By raising SIGTERM anew uvicorn would die of it: no atexit, no worker_exit hook, an exit code
    that says "killed". Where nobody else handles the signal, the process exits in order instead,
    0 after a clean drain and 1 otherwise. A program's own handler gets its signal.

    uvicorn comes here without a signal, too, when it has stopped (not in a thread). That is how a
    server ends its process that was stopped by an exception which nobody handled.
    """

    def __init__(self, owner: SignalOwner, server: Server) -> None:
        super().__init__()
        self._owner = owner
        self._server = server

    def hear(self, signum: int, frame: FrameType | None) -> None:
        """Take a signal that uvicorn has no handler for, or one that decides too much by itself.

        `Server.handle_exit` takes SIGINT for the second, whoever has told the server to exit.
        """
        self.append(signum)
        self._server.should_exit = True

    def append(self, signum: int, /) -> None:
        """Note a signal. Runs in the signal handler."""
        super().append(signum)
        self._owner.on_signal(signum)

    def __reversed__(self) -> Iterator[int]:
        """Yield what uvicorn is to raise anew. Its handlers are no longer installed by then."""
        code = self._owner.exit_code()
        ends = code is not None and self._owner.failed
        for signum in super().__reversed__():
            if code is not None and self._ends_process(signum):
                ends = True
            else:
                self._owner.release()
                yield signum
        if ends:
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                # gunicorn repeats it, and what exits now would die of it. Of a Python handler, too:
                # the interpreter puts the default in its place while it ends.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise SystemExit(code)

    def _ends_process(self, signum: int) -> bool:
        """Say whether nobody else handles *signum* but the defaults (asyncio.run's is one)."""
        handler = signal.getsignal(signum)
        if handler in (signal.SIG_DFL, signal.default_int_handler, self.hear):
            return True
        runner = getattr(asyncio, "Runner", None)  # from Python 3.11 on
        method = getattr(handler, "func", None)
        return runner is not None and isinstance(getattr(method, "__self__", None), runner)


def handles(server: object, signum: int) -> bool:
    """Say whether it is *server* that handles a signal of the process."""
    return getattr(signal.getsignal(signum), "__self__", None) is server


def check_signal_handler(server: object) -> None:
    """Say in the log if SIGTERM does not come to *server*. Call it once startup is over: what an
    app's own code has put in the place of uvicorn's handler is there by then."""
    if not handles(server, signal.SIGTERM):
        log.caution(
            "SIGTERM goes to %r, not to uvicorn: it begins no drain unless that sets "
            "server.should_exit",
            signal.getsignal(signal.SIGTERM),
        )
