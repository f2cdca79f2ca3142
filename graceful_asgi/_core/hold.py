"""A drain that was begun and undoes itself when no stop has come in time."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from .. import log
from ..phase import Phase

if TYPE_CHECKING:
    from ..phase import PhaseChange
    from .state import DrainState


class Hold:
    """Begins drains that somebody may forget about, and calls them off.

    A drain is undone only if all that asked for it allow that, and at the latest of their times.
    The timer is a thread of its own: whoever asked may be gone, and the event loop blocked. Safe
    from any thread; not in a signal handler.
    """

    def __init__(self, state: DrainState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._until = -math.inf
        self._held: object = None
        """The drain that may be undone; a drain has a timeline of its own."""

    def begin(self, reason: str, *, resume_after: float | None = None) -> bool:
        """Begin a drain, or join the one that is under way.

        Args:
            reason: what the log and the report name as the cause.
            resume_after: seconds after which the drain is called off if no stop has come. None
                leaves it as it is, for good: an earlier caller's time no longer counts.

        Returns:
            Whether this call began the drain.
        """
        with self._lock:
            began = self._state.begin(reason)
            timeline = self._state.timeline
            if resume_after is None or not (began or self._held is timeline):
                self._forget()
            else:
                until = time.monotonic() + resume_after
                self._until = until if began else max(until, self._until)
                self._held = timeline
                self._wind(reason)
            return began

    def _wind(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = max(0.0, self._until - time.monotonic())
        left = min(left, threading.TIMEOUT_MAX)
        timer = threading.Timer(left, lambda: self._undo(timer, reason))
        timer.daemon = True  # it must not keep a process that has drained
        timer.name = "graceful_asgi hold"
        timer.start()
        self._timer = timer

    def _undo(self, timer: threading.Timer, reason: str) -> None:
        with self._lock:
            state = self._state
            if timer is not self._timer:
                return
            held = self._held is state.timeline and not state.stopping
            self._forget()
            if held and state.resume():
                log.caution("no stop has followed the drain begun by %s: called off", reason)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._held = None

    def time_left(self) -> float | None:
        """Seconds until the drain is undone; None where it is not going to be."""
        with self._lock:
            state = self._state
            if self._held is None or self._held is not state.timeline or state.stopping:
                return None
            return max(0.0, self._until - time.monotonic())

    # As an attendant

    def phase_changed(self, change: PhaseChange) -> None:
        """Let the timer go once there is nothing more to undo."""
        with self._lock:
            state = self._state
            # The news may be late, and another drain under way by now.
            if self._held is not state.timeline or state.phase is not Phase.LAME_DUCK:
                self._forget()

    def close(self) -> None:
        """Let the timer go."""
        with self._lock:
            self._forget()
