"""`DrainRecord`: counts the outcomes of the work in a drain, and names stuck work.

The reports, and what looks at stacks for them, are imported where they are made. That is a third of
the time of this package's import, and nothing is reported before a server starts, which loads them
(`_servers/lifespan.py`): a stop reads no file.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .. import log
from ..event_loop import LOOKS, in_slices
from ..phase import Phase
from .work import OutcomeCounts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping

    from ..report import DrainReport, DrainStatistics, StuckWork
    from .drain import Drain
    from .work import InFlight, Work


class DrainRecord:
    """The counts of the drain that is under way, and the sums of those before it.

    Every method is given the drain as it stands, and is safe from any thread, but for `note_stuck`.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._counts: dict[int, OutcomeCounts] = {}
        """The counts of each drain that is not in the sums, by the number of the drain."""
        self._before = 1, OutcomeCounts()
        """The sums of all drains up to a number, and that number plus one: one value, so that a
        thread that reads both never gets the one without the other."""
        self._closed = 0
        """The number of the last drain whose counts are final, although work goes on."""
        self._idle = 0
        """The number of the last drain that had nothing in flight once its lame duck was over."""

    def of(self, drain: Drain) -> OutcomeCounts:
        """Return the counts of *drain*; empty ones while serving."""
        if drain.phase is Phase.SERVING:
            return OutcomeCounts()
        return self._counts.setdefault(drain.number, OutcomeCounts())

    def begin(self, drain: Drain) -> None:
        """Keep only the sums of the drains before *drain*. On the loop that publishes.

        A process may drain and resume for months. The counts of each drain name its stuck work,
        and keep that in memory.
        """
        # A copy is one C call: a thread that looks at the new drain adds its counts meanwhile.
        counts = self._counts.copy()
        past = {number: each for number, each in counts.items() if number < drain.number}
        if past:
            self._before = drain.number, self._sum(past)
            for number in past:
                del self._counts[number]

    def _sum(self, counts: Mapping[int, OutcomeCounts]) -> OutcomeCounts:
        """Return the sums of all drains before, and of those in *counts* that are not in them."""
        first, before = self._before
        return OutcomeCounts.sum((before, *(counts[each] for each in counts if each >= first)))

    def is_open(self, drain: Drain) -> bool:
        """Return True while work that ends counts for *drain*."""
        return drain.phase is not Phase.SERVING and self._closed < drain.number

    def close(self, drain: Drain) -> None:
        """Count the work that is left. It is not counted again if it ends later.

        Work that was answered in the app's place was cancelled; anything else counts as aborted.
        """
        self._closed = drain.number
        counts = self.of(drain)
        for work in self._in_flight:
            if work.answered_for_app:
                counts.cancelled += 1
            else:
                counts.aborted += 1

    def note_idle(self, drain: Drain) -> None:
        """Note that nothing is in flight, and that the lame duck is over."""
        self._idle = drain.number

    def was_idle(self, drain: Drain) -> bool:
        """Return True once nothing was in flight at a moment after the lame duck.

        A server in its lame duck still gets stray requests. A caller that waits for the drain may
        look only after the next stray has arrived.
        """
        return self._idle == drain.number

    def overran(self, drain: Drain, work: StuckWork) -> None:
        """Count and log *work*, which was given up at its deadline."""
        self._abort(drain, work)
        log.stuck(work)

    def failed(self, drain: Drain, work: StuckWork) -> None:
        """Count and log *work*, which has ended with an error."""
        self._abort(drain, work)
        log.caution("%s failed after %.1f s", work.path, work.age)

    def _abort(self, drain: Drain, work: StuckWork) -> None:
        counts = self.of(drain)
        counts.stuck[work] = work
        counts.aborted += 1

    async def note_stuck(self, drain: Drain, works: Iterable[Work], now: float) -> None:
        """Remember and log what *works* were doing when their deadline passed."""
        from .stuck_report import stuck_work

        stuck = self.of(drain).stuck
        fresh = sorted((work for work in works if work not in stuck), key=lambda work: work.began)
        async for place, work in in_slices(enumerate(fresh), LOOKS):
            # To read the stacks of all would take seconds, which the work needs to unwind.
            stuck[work] = stuck_work(work, now, closely=place < log.MOST_STUCK)
        log.all_stuck([stuck[work] for work in fresh])

    def statistics(
        self, drain: Drain, now: float, *, leave_out: asyncio.Task[Any] | None = None
    ) -> DrainStatistics:
        """Return the state of this moment. The request of the task *leave_out* is not counted, for
        a caller inside of that request."""
        from ..report import DrainStatistics
        from .stuck_report import stuck_work

        works = tuple(self._in_flight)
        if leave_out is not None:
            works = tuple(w for w in works if w.task is not leave_out or w.kind != "http")
        # In this order: `begin` may run in between, and removes only what is in the sums by then.
        latest = self._counts.copy()
        total = self._sum(latest)
        oldest = min(works, key=lambda work: work.began, default=None)
        return DrainStatistics(
            phase=drain.phase,
            reason=drain.reason,
            in_flight=len(works),
            oldest=None if oldest is None else stuck_work(oldest, now),
            **self.of(drain).by_name(),
            elapsed=drain.elapsed(now),
            time_left=drain.time_left(now),
            kinds=Counter(work.kind for work in works),
            tracked=Counter(work.path for work in works if work.kind == "task"),
            drains=drain.number,
            totals=total.by_name(),
            server_errors=self.of(drain).server_errors,
            total_server_errors=total.server_errors,
        )

    def report(self, drain: Drain, now: float) -> DrainReport:
        """Return the report of *drain* up to now."""
        from ..report import DrainReport

        counts = self.of(drain)
        return DrainReport(
            reason=drain.reason,
            **counts.by_name(),
            elapsed=drain.elapsed(now),
            stuck=tuple(counts.stuck.values()),
            failed=drain.failed,
            stopped_by=drain.stopped_by or "",
            server_errors=counts.server_errors,
        )
