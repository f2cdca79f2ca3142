"""Whether an event loop goes on: stamped on it every so often, read from other threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..event_loop import Clock

SILENCE: Final = 0.5
"""Seconds without a stamp after which a loop counts as blocked. One that goes on is stamped about
every 0.1 s, and busy machines are late."""


class LoopMonitor:
    """The sign of life of one event loop, while its server drains."""

    __slots__ = ("_clock", "_last", "seen", "thread")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock()
        self.thread = threading.get_ident()
        """The thread that the loop runs in."""
        self.seen = False
        """Whether the loop has been stamped since the last `expect`."""

    def expect(self) -> None:
        """Count the silence from now. Safe in a signal handler."""
        self._last, self.seen = self._clock(), False

    def beat(self) -> None:
        """Stamp the loop. Call it there."""
        self._last, self.seen = self._clock(), True

    def blocked_for(self) -> float:
        """Seconds for which the loop has shown no sign of life; 0 where that means nothing yet."""
        silence = self._clock() - self._last
        return silence if silence > SILENCE else 0.0
