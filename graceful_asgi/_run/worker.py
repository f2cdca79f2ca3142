"""A worker's own process: a uvicorn server that obeys its parent, and tells it how things stand.

The parent speaks through a pipe, and stops a worker by SIGTERM. An end of file in that pipe means
that the parent has gone: the worker drains and goes, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import uvicorn

from .._servers import UvicornHook
from .._servers.uvicorn import MARGIN
from .config import STARTUP_FAILURE, DrainedConfig

if TYPE_CHECKING:
    import socket
    from multiprocessing.connection import Connection
    from types import FrameType
    from typing import Any

    from ..phase import PhaseChange
    from ..policy import DrainPolicy

Command = Literal["ping", "service stops", "interrupt"]
"""What the parent says: are you there; your siblings are told to stop as well; Ctrl+C."""

EXIT_MARGIN: Final = 1.0
"""Seconds from a worker's own hard deadline to its SIGKILL: it says better what is stuck."""

LEFT_TO_THE_PARENT: Final = (signal.SIGINT, signal.SIGHUP)
"""Signals of a terminal, which sends them to the parent and to each worker."""


@dataclass(frozen=True, slots=True)
class StopDeadlines:
    """How long a worker may take to be gone, in seconds from the signal."""

    whole: float
    """From SIGTERM on: up to its own hard deadline."""
    lame_duck: float
    """How much of that SIGINT leaves out."""
    after_cancel: float
    """From the moment that it waits for nothing any more."""

    @classmethod
    def of(cls, policy: DrainPolicy) -> StopDeadlines:
        """Return what *policy* allows."""
        return cls(
            policy.total_period + MARGIN,
            policy.lame_duck_period,
            policy.cancel_period + policy.cleanup_period + MARGIN,
        )


@dataclass(frozen=True, slots=True)
class Ready:
    """It serves."""

    allowance: StopDeadlines


@dataclass(frozen=True, slots=True)
class Pong:
    """It is there."""

    in_flight: int
    ended: int
    """How much of what was in flight has ended since the drain began."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """It stops, and may do so of its own accord: another is needed in its place."""

    failed: bool
    """Whether an exception that nobody handled is the reason."""


Status = Ready | Pong | Leaving


def run_worker(
    config: DrainedConfig, parent: Connection, sockets: list[socket.socket] | None = None
) -> None:
    """Serve until told to stop, then exit: 0 after a clean drain, 1 otherwise, 3 if never."""
    for number in LEFT_TO_THE_PARENT:
        signal.signal(number, _leave_it)  # not ignored: what the app starts would inherit that
    server = WorkerServer(config, parent)
    server.run(sockets)
    hook = UvicornHook.of(server)
    if not server.started:
        sys.exit(STARTUP_FAILURE)
    sys.exit(0 if hook is None else hook.exit_code())


def _leave_it(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


class WorkerServer(uvicorn.Server):
    """A uvicorn server with a parent."""

    exit_margin = EXIT_MARGIN
    """Seconds that the whole service may take beyond this server's hard deadline."""

    config: DrainedConfig

    def __init__(self, config: DrainedConfig, parent: Connection) -> None:
        super().__init__(config)
        self._parent = parent
        self._sending = threading.Lock()
        self._has_said_it_leaves = False
        self._interrupts: list[Command] = []
        """The parent's Ctrl+C that are still to be taken."""
        self.service_stops = False
        """Whether no sibling goes on with the listening sockets. For the server edge."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on *sockets*, obeying the parent from here on."""
        threading.Thread(target=self._obey, name="graceful_asgi orders", daemon=True).start()
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and tell the parent."""
        self.handle_exit(signal.SIGINT, None)  # what came before uvicorn's handler was there
        await super().startup(sockets=sockets)
        hook = UvicornHook.of(self)
        if hook is not None:
            hook.drainer.notifier.hooks.append(self._note_phase)
            policy = hook.drainer.policy
        else:
            policy = self.config.policy
        if self.started:
            self._tell(Ready(StopDeadlines.of(policy)))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal, in the signal handler. One of a terminal counts as the parent says."""
        if sig not in LEFT_TO_THE_PARENT:
            super().handle_exit(sig, frame)
        while sig == signal.SIGINT and self._interrupts:
            self._interrupts.pop()
            super().handle_exit(sig, frame)

    def _note_phase(self, change: PhaseChange) -> None:
        hook = UvicornHook.of(self)
        if hook is not None and hook.drainer.stopping and not self._has_said_it_leaves:
            self._has_said_it_leaves = True
            self._tell(Leaving(hook.failed))

    def _obey(self) -> None:
        """Take orders, in a thread: a blocked event loop must not be the end of obedience."""
        while True:
            try:
                order: Command = self._parent.recv()
            except (EOFError, OSError):
                self._note_service_stops()
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if order == "ping":
                self._tell(self._pong())
            elif order == "service stops":
                self._note_service_stops()
            else:
                self._interrupts.append(order)
                # By the main thread: uvicorn's handler looks at flags that its loop sets.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _note_service_stops(self) -> None:
        # A socket that has come from outside outlives the service (socket activation).
        self.service_stops = self.config.fd is None

    def _pong(self) -> Pong:
        hook = UvicornHook.of(self)
        if hook is None:
            return Pong(0, 0)
        now = hook.drainer.statistics()
        return Pong(now.in_flight, now.completed + now.cancelled + now.aborted)

    def _tell(self, news: Any) -> None:
        with self._sending, contextlib.suppress(OSError):  # the parent has gone: see `_obey`
            self._parent.send(news)
