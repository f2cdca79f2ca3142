"""What a supervisor holds of each worker, and when another may be started after a loss."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from uvicorn._subprocess import get_subprocess

from .. import log
from .._extensions.systemd import ServiceState
from .worker import EXIT_MARGIN, Leaving, Pong, Ready, run_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from .config import DrainedConfig
    from .worker import Command, StopDeadlines

CALM_PERIOD: Final = 60.0
"""Seconds without a loss after which the next one counts as the first."""

LONGEST_PAUSE: Final = 30.0

PING_PERIOD: Final = 1.0
"""Seconds between two questions whether a worker is there."""


class Backoff:
    """When the next worker may be started: at once after one loss, later and later after more."""

    def __init__(self) -> None:
        self.until = -math.inf
        self._losses = 0
        self._last = -math.inf

    def note_loss(self, now: float) -> None:
        """Count a worker that ended unasked."""
        self._losses = 1 if now - self._last > CALM_PERIOD else self._losses + 1
        self._last = now
        pause = 0.0 if self._losses == 1 else min(LONGEST_PAUSE, 2.0 ** (self._losses - 3))
        self.until = now + pause


class Worker:
    """One worker's process, the pipe to it, and the instant at which it is killed.

    Args:
        config: what it serves.
        sockets: the listening sockets; it gets copies.
        allowance: how long it may take to stop, until it says so itself.

    Raises:
        OSError: its process could not be started.
    """

    def __init__(
        self,
        config: DrainedConfig,
        sockets: Sequence[socket.socket],
        allowance: StopDeadlines,
    ) -> None:
        self._allowance = allowance
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
        self.ready = False
        """Whether it has served."""
        self.leaving = False
        """Whether it has been told to stop, or has said that it does."""
        self.talks = True
        self.pong = Pong(0, 0)
        self.started_at = time.monotonic()
        self.kill_at = math.inf
        """The instant (monotonic) at which it has to be gone: after its own hard deadline."""
        self._ping_at = math.inf  # until it serves: an import may take its time
        self._no_answer_at = math.inf

    # From the worker

    @property
    def gone(self) -> bool:
        """Whether its process has ended."""
        return self.process.exitcode is not None

    def listen(self) -> bool:
        """Take in what it has said; say whether that was that a failure stops it."""
        failed = False
        try:
            while self.talks and self.connection.poll():
                news = self.connection.recv()
                if isinstance(news, Ready):
                    self.ready, self._allowance = True, news.allowance
                    self._ping_at = time.monotonic()
                elif isinstance(news, Leaving):
                    failed |= news.failed
                    self._leave(self._allowance.whole)
                else:
                    self.pong, self._no_answer_at = news, math.inf
        except (EOFError, OSError):  # on its way out
            self.talks = False
            self._no_answer_at = math.inf
        return failed

    def instants(self) -> Iterator[float]:
        """Yield when something is due about it."""
        yield self.kill_at
        if self._no_answer_at == math.inf:
            yield self._ping_at
        elif not self.leaving:  # then its deadline is what counts
            yield self._no_answer_at

    def overdue(self, now: float) -> str | None:
        """Say why it has to be killed, if it has to; else see whether it is still there."""
        if now >= self.kill_at:
            return "is past its deadline"
        if now >= self._no_answer_at and not self.leaving:
            return f"has not answered for {self._answer_period:g} s"
        if now >= self._ping_at:
            self._ping_at = now + PING_PERIOD
            if self._no_answer_at == math.inf and self._order("ping"):
                self._no_answer_at = now + self._answer_period
        return None

    # To the worker

    def stop(self, number: signal.Signals, *, service_stops: bool) -> None:
        """Have it drain as for signal *number*, and be gone in what it is allowed.

        One that leaves already is left to it. It may be past handling a signal; and it closes its
        listener before the others, which still accept.
        """
        if self.leaving:
            return
        if service_stops:
            self._order("service stops")
        whole = self._allowance.whole
        if number == signal.SIGINT:
            self._order("interrupt")
            whole -= self._allowance.lame_duck
        else:
            self._send_signal(signal.SIGTERM)
        self._leave(whole)

    def interrupt(self, *, last: bool) -> None:
        """Have it wait for nothing any more; *last*: have it end."""
        self._order("interrupt")
        self._leave(0.0 if last else self._allowance.after_cancel)

    def kill(self) -> None:
        """End it on the spot."""
        self.kill_at = self._no_answer_at = self._ping_at = math.inf
        self.talks = False
        self._send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of one that has ended."""
        self.connection.close()
        self.process.close()
        try:
            from ..prometheus import forget_process

            forget_process(self.pid)
        except ModuleNotFoundError:
            pass  # without that extra it has left no figures
        except OSError as exc:
            log.caution("the metrics of worker %d cannot be removed: %s", self.pid, exc)

    def _leave(self, period: float) -> None:
        self.leaving = True
        self.kill_at = min(self.kill_at, time.monotonic() + period + EXIT_MARGIN)

    def _send_signal(self, number: signal.Signals) -> None:
        if not self.gone:  # its pid is nobody else's: it has not been waited for
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _order(self, order: Command) -> bool:
        try:
            self.connection.send(order)
        except OSError:
            self.talks = False
        return self.talks


def state_of(workers: Sequence[Worker], now: float) -> ServiceState:
    """Return how a service with these workers stands."""
    return ServiceState(
        workers=len(workers),
        serving=sum(worker.ready for worker in workers),
        in_flight=sum(worker.pong.in_flight for worker in workers),
        ended=sum(worker.pong.ended for worker in workers),
        left=max((worker.kill_at - now for worker in workers), default=0.0),
    )
