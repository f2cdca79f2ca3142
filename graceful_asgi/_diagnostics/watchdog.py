"""The hard deadline: a thread that ends the process when everything else has failed to.

The deadline holds whatever the process is doing: a handler that swallows its cancellation, a
blocked event loop, a thread that never ends, a hung `lifespan.shutdown`. Code that never gives the
GIL back is left to `faulthandler`, whose timer needs no GIL.

The threads are started while the server starts. At a stop the system may have no thread to give: a
full pids cgroup, `RLIMIT_NPROC`, no memory for a stack.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, TextIO

from .. import log, threads
from ..event_loop import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

FORCED: Final = 1
"""The exit code. Never 3 or 4: uvicorn's and gunicorn's parents take those for a failed start."""

MARGIN: Final = 0.5
"""Seconds from the end of the last phase to the hard deadline: a drain that takes all of its time
still logs its report and exits by itself, on a busy machine as well."""

FINAL_REPORT_PERIOD: Final = 0.4
"""Seconds for the last report. A log that blocks (a full pipe, a held lock) gets no more."""

LOOK_PERIOD: Final = 0.25
"""Seconds between two looks before the deadline. No event announces that a loop is blocked."""

FAULTHANDLER_DELAY: Final = 0.5
"""Seconds from the hard deadline to the backstop."""


class Watchdog:
    """Ends the process at the hard deadline, unless disarmed.

    Every method is safe from any thread and in a signal handler, as those of `JobThread` are. A
    fork pauses the threads, not the deadline.

    Args:
        log_final_report: called at the deadline, to log what is stuck.
        look: called every `LOOK_PERIOD` seconds, from the first `arm` to `close`.
        before_end: called at the deadline, at the same time as the report. It must not block.
    """

    def __init__(
        self,
        log_final_report: Callable[[], object],
        *,
        look: Callable[[], object] = lambda: None,
        before_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._log_final_report = log_final_report
        self._look = look
        self._before_end = before_end
        self._threads: tuple[threads.JobThread, ...] = ()
        """The one that logs and the one that ends the process; none before `start`."""
        self._looks = False
        """True once a deadline was set or removed: before a stop there is nothing to look after."""
        self._backstop = _Backstop()
        self._deadline = math.inf
        """Absolute. Read by the thread that ends the process, which is woken when it changes."""

    def start(self) -> bool:
        """Start the threads: one that watches the deadline, and one that logs, which may block.

        Idempotent.

        Returns:
            False where the system has no thread to give.
        """
        if not self._threads:
            speech = threads.JobThread(
                due_in=lambda: LOOK_PERIOD if self._looks else math.inf,
                when_due=self._look_after,
                is_done=lambda: speech not in self._threads,
                lost=self.end_threads,
                forget=self.end_threads,
            )
            watch = threads.JobThread(
                due_in=self.seconds_left,
                when_due=lambda: self._end_process(speech),
                is_done=lambda: watch not in self._threads,
                lost=self.end_threads,
                forget=self.end_threads,
                cannot_wait=lambda: self.armed,
            )
            # Before they start: a signal handler may come in here, and call `arm`.
            self._threads = speech, watch
            if not (speech.start() and watch.start()):
                self.end_threads()
        return bool(self._threads)

    @property
    def armed(self) -> bool:
        """True while a deadline is set."""
        return not math.isinf(self._deadline)

    @property
    def unguarded(self) -> bool:
        """True while a deadline is set that neither a thread nor `faulthandler` keeps."""
        return self.armed and not self._threads and not self._backstop.is_set

    def seconds_left(self) -> float:
        """Return the seconds until the deadline; infinite where none is set."""
        return max(0.0, self._deadline - monotonic())

    def arm(self, seconds: float) -> None:
        """Set the deadline: end the process in *seconds*. A new deadline replaces the last one."""
        self._deadline = monotonic() + seconds
        # Try again if it failed at startup. Later is too late: from Python 3.12 on no thread can be
        # started once the interpreter shuts down.
        if self.start():
            self._wake_threads()
        self._backstop.set(self._deadline + FAULTHANDLER_DELAY)

    def disarm(self) -> None:
        """Remove the deadline, and go on looking. Idempotent."""
        self._deadline = math.inf
        self._wake_threads()
        self._backstop.cancel()

    def _wake_threads(self) -> None:
        self._looks = bool(self._threads)
        for thread in self._threads:
            thread.wake()
        threads.resume()

    def expire(self) -> None:
        """End the process now, by the same steps. Arms a watchdog that is not armed."""
        self.arm(0)

    def close(self) -> None:
        """Disarm, and end the threads. Idempotent."""
        self.disarm()
        self.end_threads()

    def end_threads(self) -> None:
        """End the threads, and keep the deadline. Idempotent."""
        ending, self._threads, self._looks = self._threads, (), False
        for thread in ending:
            thread.wake()

    # In the threads

    def _end_process(self, speech: threads.JobThread) -> None:
        """End the process at the deadline, with a report that gets only so much time."""
        if self.seconds_left():  # the deadline was moved in this very moment
            return
        reported = threading.Event()
        speech.give(partial(self._say_final_report, reported))
        with contextlib.suppress(Exception):  # nothing may put the end off
            self._before_end()
        reported.wait(FINAL_REPORT_PERIOD)
        os._exit(FORCED)

    def _look_after(self) -> None:
        _guarded(self._look, "a look at the end of the process failed; the watchdog goes on")

    def _say_final_report(self, reported: threading.Event) -> None:
        _guarded(self._log_final_report, "the report at the hard deadline failed")
        log.flush()
        logging.shutdown()  # flushes every handler; os._exit flushes nothing
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or none at all
                stream.flush()
        reported.set()


def _guarded(call: Callable[[], object], failure: str) -> None:
    try:
        call()
    except BaseException:  # SystemExit, too: it would end this thread without a word
        log.failed(failure)


class _Backstop:
    """The timer of `faulthandler`, which is a thread as well: it pauses for a fork, too.

    A process has only one such timer. The first backstop that is set has it.
    """

    _owner: ClassVar[_Backstop | None] = None

    def __init__(self) -> None:
        self._deadline = math.inf
        self._native_id = 0
        """The kernel's number of the timer's thread; 0 if that does not show."""

    @property
    def is_set(self) -> bool:
        return _Backstop._owner is self

    def set(self, deadline: float) -> None:
        """End the process at *deadline*, by the monotonic clock, if the timer is free.

        Without a usable stderr, or a thread for the timer, there is only the watching thread.
        """
        if _Backstop._owner not in (None, self):
            return
        file: TextIO | None = sys.__stderr__ or sys.stderr
        seconds = max(0.001, deadline - monotonic())  # 0 would be a ValueError
        self._deadline, _Backstop._owner = deadline, None
        with contextlib.suppress(ValueError, OSError, RuntimeError, AttributeError):
            # No stream at all (None) is one of the errors that are suppressed.
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)  # type: ignore[arg-type]
            _Backstop._owner = self
            threads.add_participant(self)

    def cancel(self) -> None:
        """Give the timer back. Idempotent."""
        threads.remove_participant(self)
        if self.is_set:
            _Backstop._owner = None
            faulthandler.cancel_dump_traceback_later()

    # As `ForkParticipant`

    def pause(self) -> None:
        """Stop the timer."""
        faulthandler.cancel_dump_traceback_later()

    def cannot_wait(self) -> bool:
        """Return True: a deadline is set."""
        return True

    def has_paused(self) -> bool:
        """Return True once the kernel has no such thread any more."""
        return not self._native_id or not threads.exists(self._native_id)

    def resume(self) -> None:
        """Set the timer again."""
        if self.is_set:
            self.set(self._deadline)

    def forget(self) -> None:
        """Leave the timer to the parent."""
        _Backstop._owner = None
