"""`Supervisor`: workers under one parent, which outlives them and holds the last deadline.

The parent accepts nothing itself. Whatever happens (a signal, word from a worker, an exit, an
instant that has come) only changes what it knows; `_tend` then does all that is due.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final

from .. import log
from .._extensions.systemd import Notifier, ServiceAnnouncer
from .config import STARTUP_FAILURE
from .signal_receiver import SignalReceiver
from .worker import StopDeadlines
from .worker_process import Backoff, Worker, state_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from .config import DrainedConfig

START_PERIOD: Final = 60.0
"""Seconds a replacement may take until it serves; the worker that it was to replace goes on."""


class Supervisor:
    """Keeps as many workers as wanted, replaces them, and ends them by a deadline.

    Args:
        config: what each worker serves, and how many of them.
        sockets: bound by the caller, closed here.
    """

    def __init__(self, config: DrainedConfig, sockets: Sequence[socket.socket]) -> None:
        self._config = config
        self._sockets = list(sockets)
        self._wanted = config.workers
        self._workers: list[Worker] = []
        self._outdated: list[Worker] = []
        self._successor: Worker | None = None
        self._backoff = Backoff()
        notifier = Notifier.from_env()
        self._announcer = (
            None if notifier is None else ServiceAnnouncer(notifier, wanted=config.workers)
        )
        self._stopping = False
        self._has_served = False
        self._interrupts = 0  # on top of a stop
        self._code = 0
        self._handlers: dict[int, Callable[[], None]] = {
            signal.SIGTERM: partial(self._stop, signal.SIGTERM),
            signal.SIGINT: self._on_interrupt,
            signal.SIGHUP: self._on_hang_up,
            signal.SIGTTIN: self._on_more,
            signal.SIGTTOU: self._on_fewer,
            # Awakens; a worker's sentinel may be held open by a child that it has forked.
            signal.SIGCHLD: _do_nothing,
            signal.SIGUSR1: _do_nothing,  # uvicorn's parent lives on, too
            signal.SIGUSR2: _do_nothing,
        }

    def run(self) -> int:
        """Supervise to the end; return the exit code.

        0 when every worker finished what it had in flight, 1 when one was forced to end, 3
        (uvicorn's) when none has ever served.
        """
        log.follow("uvicorn.error")
        log.start()
        with SignalReceiver(self._handlers) as inbox:
            self._say("started", "supervises %d workers", self._wanted)
            self._tend()
            while self._workers or not self._stopping:
                self._wait(inbox)
                self._tend()
                self._announce()
            self._say("ended", "no worker is left; exit code %d", self._code)
        return self._code

    # What happens

    def _wait(self, inbox: SignalReceiver) -> None:
        """Wait until something happens, and take note of it."""
        left = self._next_instant() - time.monotonic()
        sources: list[Any] = [inbox, *(worker.process.sentinel for worker in self._workers)]
        sources += [worker.connection for worker in self._workers if worker.talks]
        wait(sources, None if math.isinf(left) else max(0.0, left))
        for number in inbox.take():
            self._handlers[number]()
        for worker in self._workers:
            failed = worker.listen()
            self._has_served |= worker.ready
            if failed:
                self._warn("worker_failed", "worker %d stops after a failure", worker.pid)
                self._backoff.note_loss(time.monotonic())

    def _next_instant(self) -> float:
        instants = [instant for worker in self._workers for instant in worker.instants()]
        if self._is_missing_some():
            instants.append(self._backoff.until)
        if self._successor is not None:
            instants.append(self._successor.started_at + START_PERIOD)
        return min(instants, default=math.inf)

    def _on_interrupt(self) -> None:
        """Ctrl+C: stop without a lame duck; again: cancel; again: end."""
        if not self._stopping:
            self._stop(signal.SIGINT)
            return
        self._interrupts += 1
        for worker in self._workers:
            worker.interrupt(last=self._interrupts > 1)

    def _on_hang_up(self) -> None:
        if self._stopping:
            self._say("ignored", "SIGHUP ignored, already stopping")
            return
        self._say("replacing", "SIGHUP: replaces %d workers, one at a time", len(self._staying()))
        # Those that leave stay on the list: the next one waits until they have gone.
        self._outdated = [worker for worker in self._outdated if worker.leaving] + self._staying()
        if self._successor is not None:  # it may have loaded what has been replaced by now
            self._outdated.append(self._successor)

    def _on_more(self) -> None:
        self._wanted += 1
        self._say("wanted", "SIGTTIN: %d workers from now on", self._wanted)

    def _on_fewer(self) -> None:
        self._wanted = max(1, self._wanted - 1)
        self._say("wanted", "SIGTTOU: %d workers from now on", self._wanted)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping:
            return  # platforms repeat it
        self._stopping = True
        self._say("stopping", "%s: stops %d workers", number.name, len(self._workers))
        # Nobody accepts here: what the kernel completed for these copies alone would be lost.
        for sock in self._sockets:
            sock.close()
        for worker in self._workers:
            worker.stop(number, service_stops=True)

    # What is due

    def _tend(self) -> None:
        """Do what is due as things stand."""
        for worker in [worker for worker in self._workers if worker.gone]:
            self._bury(worker)
        for worker in self._workers:
            if (why := worker.overdue(time.monotonic())) is not None:
                self._warn("killed", f"worker %d {why}: SIGKILL", worker.pid)
                worker.kill()
        if self._stopping:
            return
        self._replace()
        for worker in self._staying()[self._wanted :]:
            worker.stop(signal.SIGTERM, service_stops=False)
        while self._is_missing_some() and time.monotonic() >= self._backoff.until:
            self._start()

    def _staying(self) -> list[Worker]:
        """Return the workers that are there to stay, those to be replaced last."""
        staying = [
            worker
            for worker in self._workers
            if not worker.leaving and worker is not self._successor
        ]
        return sorted(staying, key=self._outdated.__contains__)

    def _is_missing_some(self) -> bool:
        return not self._stopping and len(self._staying()) < self._wanted

    def _start(self) -> Worker | None:
        allowance = StopDeadlines.of(self._config.policy)
        try:
            worker = Worker(self._config, self._sockets, allowance)
        except OSError as exc:  # no memory, no process, no descriptor to be had: later, perhaps
            self._warn("not_started", "a worker could not be started: %s", exc)
            self._backoff.note_loss(time.monotonic())
            return None
        self._workers.append(worker)
        self._say("worker_started", "worker %d started", worker.pid)
        return worker

    def _bury(self, worker: Worker) -> None:
        """Take note of how a worker has ended."""
        self._workers.remove(worker)
        worker.listen()  # its last words
        code = worker.process.exitcode
        worker.close()
        if worker.leaving:
            say = self._say if code == 0 else self._warn
            say("worker_ended", "worker %d ended, exit code %s", worker.pid, code)
            if self._stopping and worker.ready and code != 0:
                self._code = 1
            return
        self._warn("worker_lost", "worker %d ended unasked, exit code %s", worker.pid, code)
        if worker is self._successor:
            self._give_up_replacing()
        elif code == STARTUP_FAILURE and not (self._has_served or worker.ready):
            self._warn("not_started", "the app does not start: stops")
            self._code = STARTUP_FAILURE
            self._stop(signal.SIGTERM)
        else:
            self._backoff.note_loss(time.monotonic())

    def _replace(self) -> None:
        """Go on with what SIGHUP has begun: bring one up, then let one go, then the next."""
        self._outdated = [worker for worker in self._outdated if worker in self._workers]
        successor = self._successor
        if successor is None:
            # One at a time: not before the one that was replaced last has gone.
            if self._outdated and not any(worker.leaving for worker in self._outdated):
                self._successor = self._start()
                if self._successor is None:
                    self._give_up_replacing()
        elif successor.ready:
            self._successor = None
            for worker in self._outdated[:1]:
                worker.stop(signal.SIGTERM, service_stops=False)
        elif time.monotonic() >= successor.started_at + START_PERIOD:
            self._warn("killed", "worker %d does not start: SIGKILL", successor.pid)
            successor.kill()
            self._give_up_replacing()

    def _give_up_replacing(self) -> None:
        self._successor, self._outdated = None, []
        self._warn("not_replaced", "the replacement has failed: the workers there are go on")

    def _announce(self) -> None:
        if self._announcer is not None:
            now = time.monotonic()
            self._announcer.look(state_of(self._workers, now), stopping=self._stopping, now=now)

    _say = staticmethod(log.supervision)

    def _warn(self, event: str, message: str, *args: object) -> None:
        self._say(event, message, *args, level=logging.WARNING)


def _do_nothing() -> None:
    """Handle a signal by doing what is due, and nothing else."""
