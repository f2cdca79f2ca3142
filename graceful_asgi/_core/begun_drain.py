"""`BegunDrain`: the outcome of one drain, for the caller that has begun it or joined it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..phase import Phase

if TYPE_CHECKING:
    from ..report import DrainOutcome
    from .view import DrainView


class BegunDrain:
    """The drain that is under way when this is made. Safe to ask from any thread."""

    def __init__(self, view: DrainView) -> None:
        self._view = view
        self._number = view.state.number

    @property
    def is_held(self) -> bool:
        """True while it is in its lame duck, and no stop has come."""
        state = self._view.state
        return state.number == self._number and state.held

    def outcome(self) -> DrainOutcome | None:
        """Return the outcome of the drain; None while it is not decided."""
        view, state = self._view, self._view.state
        if state.number != self._number or state.phase is Phase.SERVING:
            return "resumed"
        if view.drained or view.record.was_idle(state):
            return "clean" if view.report().clean else "forced"
        # After a stop, the grace period of the stop decides: at its end work is cancelled.
        return "forced" if self.gives_up_in() <= 0 and not state.stopping else None

    def gives_up_in(self) -> float:
        """Return the seconds until the drain counts as forced if no stop comes; then 0."""
        return max(0.0, self._view.state.give_up_at() - self._view.now())

    def changes_in(self) -> float:
        """Return the seconds until time alone may decide the outcome; infinite if it cannot."""
        ends = (self._view.lame_duck_end() - self._view.now(), self.gives_up_in())
        return min((left for left in ends if left > 0), default=math.inf)
