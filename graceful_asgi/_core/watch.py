"""How a drain that was begun comes out: what whoever has begun it waits for. It never waits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ..phase import Phase

if TYPE_CHECKING:
    from .drainer import Drainer

Outcome = Literal["clean", "forced", "resumed"]
"""`clean`: the lame duck has passed and nothing is in flight. `forced`: something still is after
the grace period as well, or had to be cancelled. `resumed`: the drain was called off."""


class DrainWatch:
    """Watches the drain that is under way now. Safe to look at from any thread."""

    def __init__(self, drainer: Drainer) -> None:
        self._drainer = drainer
        self._timeline = drainer.timeline

    def outcome(self) -> Outcome | None:
        """Return how it came out; None while that is open."""
        drainer = self._drainer
        if drainer.timeline is not self._timeline or drainer.phase is Phase.SERVING:
            return "resumed"
        if drainer.drained:
            return "clean" if drainer.report().clean else "forced"
        # Nothing is cancelled by that: it is the stop that does it, when its own time is over.
        return "forced" if self.gives_up_in() <= 0 and not drainer.stopping else None

    def gives_up_in(self) -> float:
        """Seconds until a drain without a stop counts as forced; 0 when it does."""
        policy = self._drainer.policy
        end = self._timeline.began + policy.lame_duck_period + policy.grace_period
        return max(0.0, end - self._drainer.now())

    def changes_in(self) -> float:
        """Seconds until time alone may bring the outcome; infinite where it takes an event."""
        ends = (self._timeline.lame_duck_end() - self._drainer.now(), self.gives_up_in())
        return min((left for left in ends if left > 0), default=math.inf)
