"""`LoopMonitor`: shows other threads for how long an event loop has been blocked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..event_loop import Clock

SILENCE: Final = 0.5
"""Seconds without a beat after which a loop counts as blocked. A running loop beats about every
0.1 s, and busy machines are late."""


class LoopMonitor:
    """Measures whether one event loop goes on, while its server drains."""

    __slots__ = ("_clock", "_last", "seen", "thread")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock()
        self.thread = threading.get_ident()
        """The thread that the loop runs in."""
        self.seen = False
        """True if the loop has beaten since the last `expect`."""

    def expect(self) -> None:
        """Begin to measure: count the silence from now. Safe in a signal handler."""
        self._last, self.seen = self._clock(), False

    def beat(self) -> None:
        """Note that the loop goes on. Call it on the loop."""
        self._last, self.seen = self._clock(), True

    def blocked_for(self) -> float:
        """Return the seconds since the last beat; 0 while the loop does not count as blocked."""
        silence = self._clock() - self._last
        return silence if silence > SILENCE else 0.0
