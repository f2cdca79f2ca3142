"""The hard deadline: a thread that ends the process when everything else has failed to.

It holds whatever the process is doing: a handler that swallows its cancellation, a blocked event
loop, a thread that never ends, a hung `lifespan.shutdown`. Code that never gives the GIL back is
left to `faulthandler`, whose timer needs no GIL.
"""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import logging
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

LAST_WORDS_PERIOD: Final = 0.4
"""Seconds for the report. A log that blocks (a full pipe, a lock that is held) gets no more."""

LOOK_PERIOD: Final = 0.25
"""Seconds between two looks before the deadline. A blocked loop is an event to nobody."""

FAULTHANDLER_DELAY: Final = 0.5
"""Seconds from the hard deadline to the backstop."""


class Watchdog:
    """Ends the process at the hard deadline, unless disarmed.

    Every method is safe from any thread and in a signal handler: no lock that the interrupted
    code may hold is taken. That is why the thread is a bare one: `Thread.start` takes such a lock.

    Args:
        last_words: called at the deadline, in a thread of its own, to say what is stuck.
        look: called there before, every so often, as long as it returns True.
    """

    _backstop: ClassVar[Watchdog | None] = None
    """Whose `faulthandler`'s timer is: there is one in a process, and a second would undo it."""

    def __init__(
        self, log_final_report: Callable[[], object], *, look: Callable[[], bool] = lambda: False
    ) -> None:
        self._last_words = log_final_report
        self._look = look
        # Documented as reentrant, for just this: `put` in the middle of a `put`.
        self._orders: queue.SimpleQueue[bool] | None = None

    @property
    def armed(self) -> bool:
        """Whether the process will be gone at the deadline."""
        return self._orders is not None

    def arm(self, seconds: float) -> None:
        """End the process in *seconds*. Idempotent: the first deadline stands."""
        if self._orders is not None:
            return
        # Both threads now: Python 3.12 starts none any more once the interpreter shuts down.
        self._orders = queue.SimpleQueue()
        speak: queue.SimpleQueue[bool] = queue.SimpleQueue()
        spoken: queue.SimpleQueue[None] = queue.SimpleQueue()
        deadline = time.monotonic() + seconds
        _thread.start_new_thread(self._speak, (speak, spoken))
        _thread.start_new_thread(self._watch, (self._orders, deadline, speak, spoken))
        # No usable stderr: then the thread alone has to do.
        with contextlib.suppress(ValueError, OSError, RuntimeError, AttributeError):
            file = sys.__stderr__ or sys.stderr
            self._take_backstop(seconds + FAULTHANDLER_DELAY, file)

    def disarm(self) -> None:
        """Let the process live. Idempotent."""
        if self._orders is not None:
            if Watchdog._backstop is self:
                Watchdog._backstop = None
                faulthandler.cancel_dump_traceback_later()
            self._orders.put(False)
            self._orders = None

    def _take_backstop(self, seconds: float, file: TextIO) -> None:
        if Watchdog._backstop is None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)
            Watchdog._backstop = self

    def expire(self) -> None:
        """End the process now, by the same steps. Arms what is not armed."""
        self.arm(0)
        if self._orders is not None:
            self._orders.put(True)

    @staticmethod
    def _watch(
        orders: queue.SimpleQueue[bool],
        deadline: float,
        speak: queue.SimpleQueue[bool],
        spoken: queue.SimpleQueue[None],
    ) -> None:
        try:
            expired = orders.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            expired = True
        speak.put(expired)
        if expired:
            with contextlib.suppress(queue.Empty):
                spoken.get(timeout=LAST_WORDS_PERIOD)
            os._exit(FORCED)

    def _speak(self, speak: queue.SimpleQueue[bool], spoken: queue.SimpleQueue[None]) -> None:
        if not self._wait(speak):
            return
        try:
            self._last_words()
        except Exception:
            log.failed("the report at the hard deadline failed")
        finally:
            log.flush()
            logging.shutdown()  # flushes every handler; os._exit flushes nothing
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # closed, or none at all
                    stream.flush()
            spoken.put(None)

    def _wait(self, speak: queue.SimpleQueue[bool]) -> bool:
        """Return whether to speak, looking around until that is known."""
        while True:
            try:
                return speak.get(timeout=LOOK_PERIOD)
            except queue.Empty:
                if not self._look_around():
                    return speak.get()

    def _look_around(self) -> bool:
        try:
            return self._look()
        except Exception:
            log.failed("looking for a blocked event loop failed; the drain goes on")
            return False
