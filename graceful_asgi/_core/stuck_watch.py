"""`StuckWatch`: makes the stuck report when it is due, wherever something still runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .. import log

if TYPE_CHECKING:
    from ..report import Moment
    from .stuck_report import StuckReport
    from .view import DrainView

AHEAD: Final = 1.0
"""Seconds from the report to the end of the grace period (half of that, if it is under two)."""


class StuckWatch:
    """Reports once a drain what keeps it from its end, shortly before work is cancelled.

    The event loop reports. Where the loop is blocked, the thread of the watchdog does, which also
    reports at the hard deadline. Safe from any thread.
    """

    def __init__(self, view: DrainView) -> None:
        self._view = view
        self._reported = 0
        """The number of the last drain that was reported."""

    def due(self) -> float:
        """Return when the report is due; infinite before a stop, and after the report."""
        state = self._view.state
        if not (self._reported < state.number and state.stopping and state.waiting):
            return math.inf
        return self._view.grace_end() - min(AHEAD, self._view.policy.grace_period / 2)

    def report(self) -> None:
        """Log what is stuck, once a drain."""
        number = self._view.state.number
        if self._reported >= number:
            return
        self._reported = number
        try:
            if self._view.in_flight or self._loop_is_blocked():
                self.look("grace period").write()
        except Exception:
            log.failed("the stuck report failed; the drain goes on")

    def report_if_blocked(self) -> None:
        """Report in the place of a blocked loop, once the report is due. For the watchdog."""
        if self._view.now() >= self.due() and self._loop_is_blocked():
            self.report()

    def report_at_end(self, moment: Moment) -> None:
        """Log what is stuck as the process ends, whatever the loop does. For the watchdog."""
        self._view.notifier.publish()
        self.look(moment).write()

    def _loop_is_blocked(self) -> bool:
        monitor = self._view.loop_monitor
        return monitor is not None and bool(monitor.blocked_for())

    def look(self, moment: Moment) -> StuckReport:
        """Look at everything in flight. Takes milliseconds."""
        from .stuck_report import build_stuck_report  # loaded at the start of a server

        view, now = self._view, self._view.now()
        return build_stuck_report(
            view.in_flight,
            view.lifespan,
            view.state,
            now,
            moment=moment,
            time_left=max(0.0, view.grace_end() - now) if moment == "grace period" else 0.0,
            loop_monitor=view.loop_monitor,
        )
