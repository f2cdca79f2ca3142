"""What can be seen of a drain: how it stands, what it came to, how long it may take. Reads only."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..phase import Phase
from ..report import DrainReport, DrainStatistics
from .stuck_report import ahead, stuck_work

if TYPE_CHECKING:
    import asyncio

    from .._diagnostics.loop_monitor import LoopMonitor
    from ..policy import DrainPolicy
    from .tally import OutcomeCounts
    from .timeline import Timeline
    from .work import InFlight


class Outlook:
    """The reading half of a drain's state. Every method is safe from any thread."""

    policy: DrainPolicy
    phase: Phase
    reason: str
    in_flight: InFlight
    timeline: Timeline
    loop_monitor: LoopMonitor | None
    """The sign of life of the server's loop, where somebody stamps it."""
    _tally: OutcomeCounts
    _drains: int
    _failed: bool
    _unstopped: list[bool]
    _unreported: list[bool]

    @property
    def stopping(self) -> bool:
        """Whether a stop has come: the drain ends with the process."""
        return not self._unstopped

    @property
    def waiting(self) -> bool:
        """Whether a drain is under way that waits for the work in flight."""
        return self.phase in (Phase.LAME_DUCK, Phase.DRAINING)

    def statistics(self, *, leave_out: asyncio.Task[Any] | None = None) -> DrainStatistics:
        """Return the state of this moment.

        Args:
            leave_out: a task whose request is not counted: that of somebody who asks from
                within one, and does not mean that one.
        """
        works, now = tuple(self.in_flight), self.now()
        if leave_out is not None:
            works = tuple(w for w in works if w.task is not leave_out or w.kind != "http")
        oldest = min(works, key=lambda work: work.began, default=None)
        tally = self._tally
        return DrainStatistics(
            phase=self.phase,
            reason=self.reason,
            in_flight=len(works),
            oldest=None if oldest is None else stuck_work(oldest, now),
            **tally.counts(),
            elapsed=self.timeline.elapsed(now),
            time_left=self.time_left(),
            kinds=Counter(work.kind for work in works),
            tracked=Counter(work.path for work in works if work.kind == "task"),
            drains=self._drains,
            totals=tally.totals(),
        )

    def report(self) -> DrainReport:
        """Return the report of the drain up to now."""
        return DrainReport(
            reason=self.reason,
            **self._tally.counts(),
            elapsed=self.timeline.elapsed(self.now()),
            stuck=tuple(self._tally.stuck.values()),
            failed=self._failed,
        )

    def time_left(self) -> float:
        """Seconds until the work in flight is cancelled, at the longest; infinite before a stop.

        Once it is cancelled: until the phase that goes on has to end.
        """
        if not self.stopping:
            return math.inf
        now, policy = self.now(), self.policy
        if self.phase in (Phase.SERVING, Phase.LAME_DUCK):
            return self.timeline.lame_duck_left(now) + policy.grace_period
        most = policy.cancel_period if self.phase is Phase.CANCELLING else policy.total_period
        return self.timeline.left(now, most)

    def whole_time_left(self) -> float:
        """Seconds until the last phase has to end; infinite before a stop."""
        after = 0.0
        if self.phase is Phase.SERVING or self.waiting:
            after += self.policy.cancel_period
        if self.phase not in (Phase.CLEANUP, Phase.STOPPED):
            after += self.policy.cleanup_period
        return self.time_left() + after

    def report_due(self) -> float:
        """Return when the stuck report has to be made; infinite before a stop, and once it is."""
        if not (self._unreported and self.stopping and self.waiting):
            return math.inf
        return self.grace_end() - ahead(self.policy.grace_period)

    def grace_end(self) -> float:
        """Return when the grace period ends, as things stand after a stop."""
        if self.phase is Phase.LAME_DUCK:
            return self.timeline.lame_duck_end() + self.policy.grace_period
        return self.timeline.deadline

    def age(self) -> float:
        """Seconds since the drain began; 0 while serving."""
        return 0.0 if self.phase is Phase.SERVING else self.now() - self.timeline.began

    def now(self) -> float:
        """Return the time in seconds, by the one clock of this drain."""
        return self.in_flight.clock()
