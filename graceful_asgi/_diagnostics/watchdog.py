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
import queue
import sys
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TextIO, TypeAlias

from .. import log, threads
from ..event_loop import monotonic

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

Order: TypeAlias = Literal["look", "final report", "pause", "end"]


class Watchdog:
    """Ends the process at the hard deadline, unless disarmed.

    Every method is safe from any thread and in a signal handler: `SimpleQueue.put` is documented as
    reentrant, and so is `BareThread`. A fork pauses the threads, not the deadline.

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
        self._watch: _Watch | None = None
        self._backstop = _Backstop()
        self._deadline = math.inf

    def start(self) -> bool:
        """Start the threads: one that watches the deadline, and one that logs, which may block.

        Idempotent.

        Returns:
            False where the system has no thread to give.
        """
        if self._watch is None:
            speech = _Speech(self._log_final_report, self._look, owner=self)
            watch = _Watch(speech, self._before_end, owner=self)
            if not speech.thread.start():
                return False
            if not watch.thread.start():
                speech.give("end")
                return False
            self._watch = watch
        return True

    @property
    def armed(self) -> bool:
        """True while a deadline is set."""
        return not math.isinf(self._deadline)

    @property
    def unguarded(self) -> bool:
        """True while a deadline is set that neither a thread nor `faulthandler` keeps."""
        return self.armed and self._watch is None and not self._backstop.is_set

    def seconds_left(self) -> float:
        """Return the seconds until the deadline; infinite where none is set."""
        return max(0.0, self._deadline - monotonic())

    def arm(self, seconds: float) -> None:
        """Set the deadline: end the process in *seconds*. A new deadline replaces the last one."""
        self._deadline = monotonic() + seconds
        # Try again if it failed at startup. Later is too late: from Python 3.12 on no thread can be
        # started once the interpreter shuts down.
        if self.start():
            self._give_deadline()
        self._backstop.set(self._deadline + FAULTHANDLER_DELAY)

    def disarm(self) -> None:
        """Remove the deadline, and go on looking. Idempotent."""
        self._deadline = math.inf
        self._give_deadline()
        self._backstop.cancel()

    def _give_deadline(self) -> None:
        if (watch := self._watch) is not None:
            watch.deadlines.put(self._deadline)
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
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.deadlines.put("end")
            watch.speech.give("end")


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
        seconds = max(0.001, deadline - monotonic())
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


class _Watch:
    """Waits for the last deadline given, and ends the process there."""

    def __init__(
        self, speech: _Speech, before_end: Callable[[], object], *, owner: Watchdog
    ) -> None:
        self.speech = speech
        self._before_end = before_end
        self.deadlines: queue.SimpleQueue[float | Literal["end", "pause"]] = queue.SimpleQueue()
        self.thread = threads.BareThread(
            self._run,
            wake=lambda: self.deadlines.put("pause"),
            lost=owner.end_threads,
            forget=owner.end_threads,
            cannot_wait=lambda: owner.armed,
        )
        self._deadline = math.inf

    def _run(self) -> bool:
        while not self.thread.must_pause():
            left = self._deadline - monotonic()
            try:
                order = self.deadlines.get(timeout=None if math.isinf(left) else max(0.0, left))
            except queue.Empty:
                self.speech.give("final report")
                with contextlib.suppress(Exception):  # nothing may put the end off
                    self._before_end()
                with contextlib.suppress(queue.Empty):
                    self.speech.said.get(timeout=FINAL_REPORT_PERIOD)
                os._exit(FORCED)
            if order == "end":
                return False
            if order != "pause":
                self._deadline = order
                self.speech.give("look")
        return True


class _Speech:
    """Runs `look` and the final report in a thread of their own, when they are ordered."""

    def __init__(
        self, log_final_report: Callable[[], object], look: Callable[[], object], *, owner: Watchdog
    ) -> None:
        self._log_final_report = log_final_report
        self._look = look
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._looks = False
        self.said: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.thread = threads.BareThread(
            self._run,
            wake=lambda: self.give("pause"),
            lost=owner.end_threads,
            forget=owner.end_threads,
        )

    def give(self, order: Order) -> None:
        """Queue an order for the thread."""
        self._orders.put(order)

    def _run(self) -> bool:
        while not self.thread.must_pause():
            try:
                order = self._orders.get(timeout=LOOK_PERIOD if self._looks else None)
            except queue.Empty:
                self._guarded(
                    self._look, "a look at the end of the process failed; the watchdog goes on"
                )
                continue
            if order == "end":
                return False
            self._looks = self._looks or order == "look"
            if order == "final report":
                self._say_final_report()
        return True

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
