"""A worker's own process: a uvicorn server that takes commands of its parent and sends its status.

The parent sends commands through a pipe, and stops a worker by SIGTERM. An end of file in the pipe
means that the parent is gone: then the worker drains and exits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import uvicorn

from .._extensions.systemd import unfinished
from .._servers import UvicornHook
from ..threads import BareThread
from .config import STARTUP_FAILURE, DrainedConfig
from .messages import (
    EXIT_MARGIN,
    LEFT_TO_THE_PARENT,
    Alive,
    Command,
    Serving,
    Status,
    StopDeadlines,
    Stopping,
)
from .startup import StoppedWhileLoadingError, run_server

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from types import FrameType

    from ..phase import PhaseChange


def run_worker(
    config: DrainedConfig, parent: Connection, sockets: list[socket.socket] | None = None
) -> None:
    """Serve until a stop, then exit: 0 after a clean drain, 1 otherwise, 3 if it never served."""
    for number in LEFT_TO_THE_PARENT:
        # A handler, not SIG_IGN: programs that the app starts would inherit that.
        signal.signal(number, _leave_to_the_parent)
    server = WorkerServer(config, parent)
    try:
        run_server(server, sockets)
    except StoppedWhileLoadingError:
        sys.exit(0)  # it has served nobody
    hook = UvicornHook.of(server)
    if not server.started:
        sys.exit(STARTUP_FAILURE)
    sys.exit(0 if hook is None else hook.exit_code())


def _leave_to_the_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


class WorkerServer(uvicorn.Server):
    """A uvicorn server with a parent."""

    exit_margin = EXIT_MARGIN
    """Seconds that the whole service may take beyond this server's hard deadline."""

    config: DrainedConfig

    def __init__(self, config: DrainedConfig, parent: Connection) -> None:
        super().__init__(config)
        self._parent = parent
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = BareThread(
            self._read_commands,
            wake=lambda: self._wake_writer.send(b"\0"),
            lost=self._end_without_parent,
            forget=lambda: None,
        )
        self._sending = threading.Lock()
        self._has_loaded = False
        self._has_sent_stopping = False
        self._interrupts: list[Command] = []
        """The interrupts from the parent that the signal handler has not taken yet. The thread
        appends and the handler pops, by one C call each: a signal handler must not wait for a lock.
        """
        self.service_stops = False
        """True if no sibling goes on with the listening sockets. For the server's adapter."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on *sockets*, and take commands from the parent from here on."""
        if not self._thread.start():
            raise RuntimeError("no thread can be started for the parent's commands")
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and send that to the parent."""
        self._has_loaded = True
        # An interrupt that the parent sent before uvicorn's handlers were installed.
        self.handle_exit(signal.SIGINT, None)
        await super().startup(sockets=sockets)
        hook = UvicornHook.of(self)
        if hook is not None:
            hook.drainer.notifier.hooks.append(self._note_phase)
        if self.started:
            policy = self.config.policy if hook is None else hook.drainer.policy
            self._send(Serving(StopDeadlines.of(policy)))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal, in the signal handler.

        A terminal sends its signals to the parent as well, which then sends `interrupt`. So a
        SIGINT counts as often as the parent has sent that.
        """
        if sig not in LEFT_TO_THE_PARENT:
            self._stop(sig, frame)
        while sig == signal.SIGINT and self._interrupts:
            self._interrupts.pop()
            self._stop(sig, frame)

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        if not self._has_loaded:
            # uvicorn would set a flag, and read it once the app is imported and has started.
            raise StoppedWhileLoadingError
        super().handle_exit(sig, frame)

    def _note_phase(self, change: PhaseChange) -> None:
        hook = UvicornHook.of(self)
        if hook is not None and change.stopped_by and not self._has_sent_stopping:
            self._has_sent_stopping = True
            self._send(Stopping(hook.failed))

    def _read_commands(self) -> bool:
        """Take commands, in a thread of its own: a blocked event loop must not delay a stop."""
        while not self._thread.must_pause():
            if self._wake_reader in wait([self._parent, self._wake_reader]):
                self._wake_reader.recv(1)
                continue
            try:
                command: Command = self._parent.recv()
            except (EOFError, OSError):
                self._end_without_parent()
                return False
            if command == "ping":
                self._send(self._alive())
            elif command == "service stops":
                self._note_service_stops()
            else:
                self._interrupts.append(command)
                # In the main thread: uvicorn's handler reads flags that its event loop writes.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return True

    def _end_without_parent(self) -> None:
        """Stop: the parent is gone, or its commands cannot be read any more."""
        self._note_service_stops()
        os.kill(os.getpid(), signal.SIGTERM)

    def _note_service_stops(self) -> None:
        # A socket that came from outside outlives the service: systemd holds it.
        self.service_stops = self.config.fd is None

    def _alive(self) -> Alive:
        hook = UvicornHook.of(self)
        if hook is None:
            return Alive(0, 0)
        return Alive(len(hook.drainer.in_flight), unfinished(hook.drainer))

    def _send(self, status: Status) -> None:
        # An error means that the parent is gone; `_read_commands` sees the end of file.
        with self._sending, contextlib.suppress(OSError):
            self._parent.send(status)
