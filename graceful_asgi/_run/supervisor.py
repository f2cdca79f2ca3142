"""`Supervisor`: workers under one parent, which outlives them and keeps the last deadline.

The parent accepts no connection. Whatever happens (a signal, a message of a worker, an exit, an
instant that has come) only changes its state. `_reconcile` then does everything that is due.

A log may block: a pipe that nobody reads. Here every order is given before it is logged, and a
thread writes the log (`log.start`).
"""

from __future__ import annotations

import logging
import math
import os
import signal
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final

from .. import log
from .._extensions.systemd import ServiceAnnouncer, SystemdNotifier
from ..event_loop import monotonic
from .config import STARTUP_FAILURE
from .signal_receiver import SignalReceiver
from .worker_process import Backoff, WorkerProcess, state_of_workers

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from .config import DrainedConfig

START_PERIOD: Final = 60.0
"""Seconds a replacement may take until it serves; the worker that it was to replace goes on."""


class Supervisor:
    """Keeps as many workers as wanted, replaces them, and ends them by a deadline.

    The caller has bound *sockets*; they are closed here.
    """

    def __init__(self, config: DrainedConfig, sockets: Sequence[socket.socket]) -> None:
        self._config = config
        self._sockets = list(sockets)
        self._wanted = config.workers
        self._workers: list[WorkerProcess] = []
        self._outdated: list[WorkerProcess] = []
        self._successor: WorkerProcess | None = None
        self._backoff = Backoff()
        notifier = SystemdNotifier.from_env()
        self._announcer = (
            None if notifier is None else ServiceAnnouncer(notifier, wanted=config.workers)
        )
        self._stopping = False
        self._has_served = False
        self._lost_unserved = 0
        """The number of workers that ended unexpectedly before any worker has served."""
        self._interrupts = 0
        """The number of SIGINT that came after the stop."""
        self._code = 0
        self._handlers: dict[int, Callable[[], None]] = {
            signal.SIGTERM: partial(self._stop, signal.SIGTERM),
            signal.SIGQUIT: partial(self._stop, signal.SIGQUIT),
            signal.SIGINT: self._on_interrupt,
            signal.SIGHUP: self._on_hang_up,
            signal.SIGTTIN: self._on_more,
            signal.SIGTTOU: self._on_fewer,
            # Wakes the loop. A worker's sentinel does not, while a child that the worker has
            # forked holds it open.
            signal.SIGCHLD: _do_nothing,
            # Their default ends the process. uvicorn's parent survives them as well.
            signal.SIGUSR1: _do_nothing,
            signal.SIGUSR2: _do_nothing,
        }

    def run(self) -> int:
        """Supervise to the end; return the exit code.

        0 when every worker finished what it had in flight, 1 when a worker was forced to end, 3
        (uvicorn's) when no worker has ever served.
        """
        log.follow("uvicorn.error")
        log.start()
        with SignalReceiver(self._handlers) as receiver:
            self._say("started", "supervises %s", _count(self._wanted))
            self._reconcile()
            while self._workers or not self._stopping:
                self._wait(receiver)
                self._reconcile()
                self._announce()
            self._say("ended", "all workers have ended; exit code %d", self._code)
        if not log.is_written():
            # Python would wait for the lock of the handler that blocks, in `logging.shutdown`.
            os._exit(self._code)
        log.stop()
        return self._code

    # What happens

    def _wait(self, receiver: SignalReceiver) -> None:
        """Wait until something happens, and change the state by it."""
        left = self._next_instant() - monotonic()
        sources: list[Any] = [receiver, *(worker.process.sentinel for worker in self._workers)]
        sources += [worker.connection for worker in self._workers if worker.connected]
        wait(sources, None if math.isinf(left) else max(0.0, left))
        for number in receiver.take():
            self._handlers[number]()
        for worker in self._workers:
            self._receive(worker)

    def _receive(self, worker: WorkerProcess) -> None:
        """Take what a worker has sent."""
        failed = worker.receive()
        self._has_served |= worker.has_served
        if failed:
            self._backoff.note_loss(monotonic())
            self._warn(
                "worker_failed", "worker %d stops because of an unhandled exception", worker.pid
            )

    def _next_instant(self) -> float:
        instants = [instant for worker in self._workers for instant in worker.instants()]
        if self._is_missing_some():
            instants.append(self._backoff.until)
        if self._successor is not None:
            instants.append(self._successor.started_at + START_PERIOD)
        return min(instants, default=math.inf)

    def _on_interrupt(self) -> None:
        """Stop without a lame duck; cancel at the second Ctrl+C; exit at the third."""
        if not self._stopping:
            self._stop(signal.SIGINT)
            return
        self._interrupts += 1
        last = self._interrupts > 1
        for worker in self._workers:
            worker.interrupt(last=last)
        what = "ends" if last else "work in flight is cancelled in"
        self._say("interrupted", "SIGINT: %s %s", what, _count(len(self._workers)))

    def _on_hang_up(self) -> None:
        if self._stopping:
            self._say("ignored", "SIGHUP ignored, already stopping")
            return
        staying = self._staying()
        # Those that stop stay on the list: the next replacement waits until they are gone.
        self._outdated = [worker for worker in self._outdated if worker.stopping] + staying
        if self._successor is not None:  # it may have loaded code that has changed since
            self._outdated.append(self._successor)
        self._say("replacing", "SIGHUP: replaces %s, one at a time", _count(len(staying)))

    def _on_more(self) -> None:
        self._wanted += 1
        self._say("wanted", "SIGTTIN: %s from now on", _count(self._wanted))

    def _on_fewer(self) -> None:
        self._wanted = max(1, self._wanted - 1)
        self._say("wanted", "SIGTTOU: %s from now on", _count(self._wanted))

    def _stop(self, number: signal.Signals, *, because: str = "") -> None:
        if self._stopping:  # platforms repeat SIGTERM
            return
        self._stopping = True
        # The parent does not accept: connections that the kernel completes only for its copies of
        # the sockets would be lost.
        for sock in self._sockets:
            sock.close()
        for worker in self._workers:
            worker.stop(number, service_stops=True)
        self._say("stopping", "%s: stops %s", because or number.name, _count(len(self._workers)))

    # What is due

    def _reconcile(self) -> None:
        """Do everything that is due as things stand."""
        for worker in [worker for worker in self._workers if worker.gone]:
            self._reap(worker)
        for worker in self._workers:
            if (why := worker.overdue(monotonic())) is not None:
                worker.kill()
                self._warn("killed", f"worker %d {why}: SIGKILL", worker.pid)
        if self._stopping:
            return
        self._replace()
        for worker in self._staying()[self._wanted :]:
            worker.stop(signal.SIGTERM, service_stops=False)
        while self._is_missing_some() and monotonic() >= self._backoff.until:
            self._start()

    def _staying(self) -> list[WorkerProcess]:
        """Return the workers that are there to stay, those to be replaced last."""
        staying = [
            worker
            for worker in self._workers
            if not worker.stopping and worker is not self._successor
        ]
        return sorted(staying, key=self._outdated.__contains__)

    def _is_missing_some(self) -> bool:
        return not self._stopping and len(self._staying()) < self._wanted

    def _start(self) -> WorkerProcess | None:
        try:
            worker = WorkerProcess(self._config, self._sockets)
        except OSError as exc:  # no memory, process or descriptor to be had: perhaps later
            self._backoff.note_loss(monotonic())
            self._warn("not_started", "a worker could not be started: %s", exc)
            return None
        self._workers.append(worker)
        self._say("worker_started", "worker %d started", worker.pid)
        return worker

    def _reap(self, worker: WorkerProcess) -> None:
        """Take a worker off the list that has ended, and decide what follows from that."""
        self._workers.remove(worker)
        self._receive(worker)  # what it sent last
        code = worker.process.exitcode
        worker.close()
        if worker.stopping:
            if self._stopping and not _ended_well(worker, code):
                self._code = self._code or 1
            say = self._say if code == 0 else self._warn
            say("worker_ended", "worker %d ended, exit code %s", worker.pid, code)
            return
        self._warn("worker_lost", "worker %d ended unexpectedly, exit code %s", worker.pid, code)
        if worker is self._successor:
            self._give_up_replacing()
        elif not self._has_served:
            self._note_unserved_loss(code)
        else:
            self._backoff.note_loss(monotonic())

    def _note_unserved_loss(self, code: int | None) -> None:
        """Give an app up that has never served.

        It has said so itself (uvicorn's exit code), or as many workers as are wanted have crashed.
        Whoever started this parent sees its exit code, and nothing but crashes otherwise.
        """
        self._lost_unserved += 1
        if code == STARTUP_FAILURE or self._lost_unserved >= self._wanted:
            self._code = STARTUP_FAILURE
            self._warn(
                "not_started",
                "the app does not start: no worker has ever served, see the errors above",
            )
            self._stop(signal.SIGTERM, because="the app does not start")
        else:
            self._backoff.note_loss(monotonic())

    def _replace(self) -> None:
        """Go on with what SIGHUP began: start a worker, then stop an old one, then the next."""
        self._outdated = [worker for worker in self._outdated if worker in self._workers]
        successor = self._successor
        if successor is None:
            # One at a time: not before the worker that was replaced last is gone.
            if self._outdated and not any(worker.stopping for worker in self._outdated):
                self._successor = self._start()
                if self._successor is None:
                    self._give_up_replacing()
        elif successor.has_served:
            self._successor = None
            for worker in self._outdated[:1]:
                worker.stop(signal.SIGTERM, service_stops=False)
        elif monotonic() >= successor.started_at + START_PERIOD:
            successor.kill()
            self._warn(
                "killed",
                "worker %d does not serve %g s after its start: SIGKILL",
                successor.pid,
                START_PERIOD,
            )
            self._give_up_replacing()

    def _give_up_replacing(self) -> None:
        self._successor, self._outdated = None, []
        self._warn(
            "not_replaced",
            "the replacement has failed, a new worker did not serve: the old workers go on",
        )

    def _announce(self) -> None:
        if self._announcer is not None:
            now = monotonic()
            state = state_of_workers(self._workers, now)
            self._announcer.update(state, stopping=self._stopping, now=now)

    _say = staticmethod(log.supervision)

    def _warn(self, event: str, message: str, *args: object) -> None:
        self._say(event, message, *args, level=logging.WARNING)


def _ended_well(worker: WorkerProcess, code: int | None) -> bool:
    """Return True if a worker that was stopped has lost nothing.

    SIGTERM ends a worker that has not even installed its handlers: it has served nobody.
    """
    return code == 0 or (code == -signal.SIGTERM and not worker.has_served)


def _count(workers: int) -> str:
    return f"{workers} worker{'' if workers == 1 else 's'}"


def _do_nothing() -> None:
    """Handle a signal by what `_reconcile` does after each."""
