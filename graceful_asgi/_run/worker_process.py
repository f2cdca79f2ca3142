"""The parent's view of one worker: its process, the pipe to it, and when it has to be gone."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

from uvicorn._subprocess import get_subprocess

from .. import log
from .._extensions.systemd import WorkersState
from ..event_loop import monotonic
from .messages import EXIT_MARGIN, Alive, Serving, StopDeadlines, Stopping
from .worker import run_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from .config import DrainedConfig
    from .messages import Command

CALM_PERIOD: Final = 60.0
"""Seconds without a loss after which the next loss counts as the first."""

LONGEST_PAUSE: Final = 30.0

PING_PERIOD: Final = 1.0
"""Seconds between two pings."""


class Backoff:
    """Delays the start of the next worker: not after one loss, more and more after several."""

    def __init__(self) -> None:
        self.until = -math.inf
        self._losses = 0
        self._last = -math.inf

    def note_loss(self, now: float) -> None:
        """Count a worker that ended without a stop."""
        self._losses = 1 if now - self._last > CALM_PERIOD else self._losses + 1
        self._last = now
        pause = 0.0 if self._losses == 1 else min(LONGEST_PAUSE, 2.0 ** (self._losses - 3))
        self.until = now + pause


class WorkerProcess:
    """One worker: its process, the pipe to it, and the instant at which it is killed.

    The worker gets copies of *sockets*. It may take as long to stop as the policy of *config* says,
    until it sends its own deadlines.

    Raises:
        OSError: its process could not be started.
    """

    def __init__(self, config: DrainedConfig, sockets: Sequence[socket.socket]) -> None:
        self._deadlines = StopDeadlines.of(config.policy)
        self._answer_period = float(config.timeout_worker_healthcheck)
        self.connection, theirs = multiprocessing.Pipe()
        target = partial(run_worker, config, theirs)
        self.process = get_subprocess(config, target, list(sockets))
        try:
            self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.pid: int = self.process.pid or 0
        self.has_served = False
        self.stopping = False
        """True once it was told to stop, or has sent that it stops."""
        self.connected = True
        """True while the pipe to it works."""
        self.last_answer = Alive(0, 0)
        self.started_at = monotonic()
        self.kill_at = math.inf
        """The instant (monotonic) at which it is killed: after its own hard deadline."""
        self._ping_at = math.inf  # no pings before it serves: an import may take its time
        self._answer_due_at = math.inf

    # From the worker

    @property
    def gone(self) -> bool:
        """True once its process has ended."""
        return self.process.exitcode is not None

    def receive(self) -> bool:
        """Take the messages that have come; return True if it stops because of a failure."""
        failed = False
        try:
            while self.connected and self.connection.poll():
                status = self.connection.recv()
                if isinstance(status, Serving):
                    self.has_served, self._deadlines = True, status.deadlines
                    self._ping_at = monotonic()
                elif isinstance(status, Stopping):
                    failed |= status.failed
                    self._expect_end(self._deadlines.after_stop)
                else:
                    self.last_answer, self._answer_due_at = status, math.inf
        except (EOFError, OSError):  # it is about to end
            self.connected = False
            self._answer_due_at = math.inf
        return failed

    def instants(self) -> Iterator[float]:
        """Yield the instants at which something is due."""
        yield self.kill_at
        if self._answer_due_at == math.inf:
            yield self._ping_at
        elif not self.stopping:  # a worker that stops has a deadline, which is what counts
            yield self._answer_due_at

    def overdue(self, now: float) -> str | None:
        """Return why it has to be killed; None if it has not. Sends the ping that is due."""
        if now >= self.kill_at:
            return "is past its deadline"
        if now >= self._answer_due_at and not self.stopping:
            return f"has not answered for {self._answer_period:g} s"
        if now >= self._ping_at:
            self._ping_at = now + PING_PERIOD
            if self._answer_due_at == math.inf and self._send("ping"):
                self._answer_due_at = now + self._answer_period
        return None

    # To the worker

    def stop(self, number: signal.Signals, *, service_stops: bool) -> None:
        """Make it drain as for signal *number*, and be gone by its deadline.

        Does nothing for a worker that stops already. That one may be past handling a signal, and
        it has to close its listener before the others do, which still accept.
        """
        if self.stopping:
            return
        if service_stops:
            self._send("service stops")
        period = self._deadlines.after_stop
        if number == signal.SIGINT:
            self._send("interrupt")
            period -= self._deadlines.lame_duck
        else:
            self._send_signal(signal.SIGTERM)
        self._expect_end(period)

    def interrupt(self, *, last: bool) -> None:
        """Make it cancel its work in flight; with *last*, make it end."""
        self._send("interrupt")
        self._expect_end(0.0 if last else self._deadlines.after_cancel)

    def kill(self) -> None:
        """End it on the spot."""
        self.kill_at = self._answer_due_at = self._ping_at = math.inf
        self.connected = False
        self._send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close what is left of a worker that has ended."""
        self.connection.close()
        self.process.close()
        with (
            log.caught("the metrics of worker %d cannot be removed", self.pid),
            contextlib.suppress(ModuleNotFoundError),  # without that extra there are none
        ):
            from ..prometheus import forget_process

            forget_process(self.pid)

    def _expect_end(self, period: float) -> None:
        self.stopping = True
        self.kill_at = min(self.kill_at, monotonic() + period + EXIT_MARGIN)

    def _send_signal(self, number: signal.Signals) -> None:
        # Until it has been waited for, its pid belongs to no other process.
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _send(self, command: Command) -> bool:
        try:
            self.connection.send(command)
        except OSError:
            self.connected = False
        return self.connected


def state_of_workers(workers: Sequence[WorkerProcess], now: float) -> WorkersState:
    """Return the state of a service with these workers."""
    return WorkersState(
        workers=len(workers),
        serving=sum(worker.has_served for worker in workers),
        in_flight=sum(worker.last_answer.in_flight for worker in workers),
        unfinished=sum(worker.last_answer.unfinished for worker in workers),
        left=max((worker.kill_at - now for worker in workers), default=0.0),
    )
