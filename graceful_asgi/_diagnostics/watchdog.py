"""The hard deadline: a thread that ends the process when everything else has failed to.

The deadline holds whatever the process is doing: a handler that swallows its cancellation, a
blocked event loop, a thread that never ends, a hung `lifespan.shutdown`. Code that never gives the
GIL back is left to `faulthandler`, whose timer needs no GIL.

The threads are started while the server starts. At a stop the system may have no thread to give: a
full pids cgroup, `RLIMIT_NPROC`, no memory for a stack.
"""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import logging
import math
import os
import queue
import sys
import time
from typing import TYPE_CHECKING, ClassVar, Final, TextIO

from .. import log

if TYPE_CHECKING:
    from collections.abc import Callable

FORCED: Final = 1
"""The exit code. Never 3 or 4: uvicorn's and gunicorn's parents take those for a failed start."""

MARGIN: Final = 0.5
"""Seconds from the end of the last phase to the hard deadline."""

FINAL_REPORT_PERIOD: Final = 0.4
"""Seconds for the last report. A log that blocks (a full pipe, a held lock) gets no more."""

LOOK_PERIOD: Final = 0.25
"""Seconds between two looks before the deadline. No event announces that a loop is blocked."""

FAULTHANDLER_DELAY: Final = 0.5
"""Seconds from the hard deadline to the backstop."""


class Watchdog:
    """Ends the process at the hard deadline, unless disarmed.

    Every method is safe from any thread and in a signal handler. `SimpleQueue.put` is documented as
    reentrant, and the threads are bare ones, because `Thread.start` takes a lock that the
    interrupted code may hold.

    Args:
        log_final_report: called at the deadline, to log what is stuck.
        look: called every `LOOK_PERIOD` seconds, from the first `arm` to `close`.
    """

    _backstop: ClassVar[Watchdog | None] = None
    """The watchdog that uses `faulthandler`'s timer. A process has only one such timer."""

    def __init__(
        self, log_final_report: Callable[[], object], *, look: Callable[[], object] = lambda: None
    ) -> None:
        self._threads = _Threads(log_final_report, look)
        self._deadline = math.inf

    def start(self) -> bool:
        """Start the threads. Idempotent.

        Returns:
            False where the system has no thread to give.
        """
        return self._threads.start()

    @property
    def armed(self) -> bool:
        """True while a deadline is set."""
        return not math.isinf(self._deadline)

    @property
    def unguarded(self) -> bool:
        """True while a deadline is set that neither a thread nor `faulthandler` keeps."""
        return self.armed and not self._threads.running and Watchdog._backstop is not self

    def seconds_left(self) -> float:
        """Return the seconds until the deadline; infinite where none is set."""
        return max(0.0, self._deadline - time.monotonic())

    def arm(self, seconds: float) -> None:
        """Set the deadline: end the process in *seconds*. A new deadline replaces the last one."""
        self._deadline = time.monotonic() + seconds
        # Try again if it failed at startup. Later is too late: from Python 3.12 on no thread can be
        # started once the interpreter shuts down.
        if self._threads.start():
            self._threads.set_deadline(self._deadline)
        self._take_backstop(seconds + FAULTHANDLER_DELAY)

    def disarm(self) -> None:
        """Remove the deadline, and go on looking. Idempotent."""
        self._deadline = math.inf
        self._threads.set_deadline(math.inf)
        if Watchdog._backstop is self:
            Watchdog._backstop = None
            faulthandler.cancel_dump_traceback_later()

    def expire(self) -> None:
        """End the process now, by the same steps. Arms a watchdog that is not armed."""
        self.arm(0)

    def close(self) -> None:
        """Disarm, and end the threads. Idempotent."""
        self.disarm()
        self._threads.end()

    def _take_backstop(self, seconds: float) -> None:
        # Without a usable stderr, or a thread for the timer, there is only the watching thread.
        if Watchdog._backstop not in (None, self):
            return
        file: TextIO | None = sys.__stderr__ or sys.stderr
        Watchdog._backstop = None
        with contextlib.suppress(ValueError, OSError, RuntimeError, AttributeError):
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)  # type: ignore[arg-type]
            Watchdog._backstop = self


class _Threads:
    """One thread that watches the deadline, and one that logs: logging may block for ever."""

    def __init__(self, log_final_report: Callable[[], object], look: Callable[[], object]) -> None:
        self._log_final_report = log_final_report
        self._look = look
        self._deadlines: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self.running = False

    def start(self) -> bool:
        """Start both threads, or none; return whether they run."""
        if self.running:
            return True
        deadlines: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        speech = _Speech(self._log_final_report, self._look)
        try:
            _thread.start_new_thread(speech.run, ())
            _thread.start_new_thread(_watch, (deadlines, speech))
        except (RuntimeError, MemoryError):
            speech.orders.put(None)
            return False
        self._deadlines, self.running = deadlines, True
        return True

    def set_deadline(self, deadline: float) -> None:
        """End the process at *deadline*, by the monotonic clock; infinite means never."""
        self._deadlines.put(deadline)

    def end(self) -> None:
        """End the threads. Idempotent."""
        self.running = False
        self._deadlines.put(None)


def _watch(deadlines: queue.SimpleQueue[float | None], speech: _Speech) -> None:
    """Wait for the last deadline given, and end the process there."""
    deadline: float | None = math.inf
    while deadline is not None:
        left = deadline - time.monotonic()
        try:
            deadline = deadlines.get(timeout=None if math.isinf(left) else max(0.0, left))
        except queue.Empty:
            speech.orders.put("final report")
            with contextlib.suppress(queue.Empty):
                speech.said.get(timeout=FINAL_REPORT_PERIOD)
            os._exit(FORCED)
        speech.orders.put("look")
    speech.orders.put(None)


class _Speech:
    """Runs `look` and the final report in a thread of their own, when they are ordered."""

    def __init__(self, log_final_report: Callable[[], object], look: Callable[[], object]) -> None:
        self._log_final_report = log_final_report
        self._look = look
        self.orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.said: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self) -> None:
        """Carry out orders until the order to end comes."""
        order: str | None = "wait"
        while order is not None:
            try:
                order = self.orders.get(timeout=LOOK_PERIOD if order == "look" else None)
            except queue.Empty:
                self._guarded(self._look, "looking after the drain failed; it goes on")
            if order == "final report":
                self._say_final_report()

    def _say_final_report(self) -> None:
        self._guarded(self._log_final_report, "the report at the hard deadline failed")
        log.flush()
        logging.shutdown()  # flushes every handler; os._exit flushes nothing
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or none at all
                stream.flush()
        self.said.put(None)

    @staticmethod
    def _guarded(call: Callable[[], object], failure: str) -> None:
        try:
            call()
        except BaseException:  # SystemExit, too: it would end this thread without a word
            log.failed(failure)
