"""The instants of one drain. Here periods become deadlines: absolute, by the drain's one clock.

It reads no clock: whoever calls says what time it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..policy import DrainPolicy


class Timeline:
    """When a drain began, and when what goes on has to end. Infinite: not as things stand."""

    __slots__ = ("_lame_duck_cut", "_last_arrival", "_policy", "began", "deadline", "ended")

    def __init__(self, policy: DrainPolicy) -> None:
        self._policy = policy
        self.began = math.inf
        self.deadline = math.inf
        """When the phase that goes on has to end. The lame duck's end is `lame_duck_end`."""
        self.ended: float | None = None
        self._lame_duck_cut = math.inf
        self._last_arrival = math.inf

    def begin(self, now: float) -> None:
        """Count the lame duck from *now*."""
        self.began = self._last_arrival = now

    def cut_lame_duck(self, now: float) -> None:
        """Let the lame duck be over. It stays cut when it begins after this."""
        self._lame_duck_cut = now

    def arrive(self, now: float) -> None:
        """Put a quiet period's end off: a request has come."""
        self._last_arrival = now

    def elapsed(self, now: float) -> float:
        """Seconds from the drain's beginning to now, or to its end; 0 before it has begun."""
        return (
            0.0
            if math.isinf(self.began)
            else (now if self.ended is None else self.ended) - self.began
        )

    def allow(self, period: float, now: float) -> None:
        """Give the phase that begins now *period* seconds."""
        self.deadline = now + period

    def lame_duck_end(self) -> float:
        """Return when the lame duck is over, unless more requests put that off."""
        quiet = self._policy.quiet_period
        quiet_end = math.inf if quiet is None else self._last_arrival + quiet
        return min(self._latest_lame_duck_end(), quiet_end)

    def _latest_lame_duck_end(self) -> float:
        return min(self.began + self._policy.lame_duck_period, self._lame_duck_cut)

    def lame_duck_left(self, now: float) -> float:
        """Seconds of the lame duck that are left at the longest: requests put off its quiet end."""
        left = max(0.0, self._latest_lame_duck_end() - now)
        return min(left, self._policy.lame_duck_period)

    def left(self, now: float, most: float) -> float:
        """Seconds left to the deadline, *most* at the longest."""
        return min(max(0.0, self.deadline - now), most)
