"""The stuck report: what is in flight as its deadline comes near, or has passed. It only looks.

The text is in `StuckReport.lines` (`report.py`) and in `stuck_report` (`log.py`).

It is made in the event loop, or in the watchdog's thread where the loop is blocked.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from .._diagnostics.stacks import (
    compressed,
    innermost,
    thread_frames,
    thread_name,
    thread_stacks,
)
from .._diagnostics.trail import Trail, trail_of
from ..report import BlockedLoop, StuckReport, StuckWork

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._diagnostics.loop_monitor import LoopMonitor
    from ..report import Moment
    from .work import Work

MOST: Final = 20
"""The pieces of work that the report describes, the oldest first. Nobody reads a thousand."""


def stuck_work(work: Work, now: float, *, closely: bool = True) -> StuckWork:
    """Describe *work* as it stands. Safe from any thread.

    To find the line where it waits takes some 0.1 ms: without *closely* that is left out.
    """
    trail = trail_of(work.coroutine()) if closely else Trail()
    return StuckWork(
        kind=work.kind,
        method=work.method,
        path=work.path,
        age=now - work.began,
        phase=work.progress,
        where=innermost(trail.frames),
        route=work.route,
        client=work.client,
        sent=work.sent,
        chain=tuple(compressed(trail.frames)),
        thread=thread_name(trail.thread),
    )


def build_stuck_report(
    works: Iterable[Work],
    lifespan: Work | None,
    now: float,
    *,
    moment: Moment,
    reason: str,
    elapsed: float,
    time_left: float,
    loop_monitor: LoopMonitor | None,
) -> StuckReport:
    """Look at all *works* in flight, and at the app's startup or shutdown where that runs.

    Safe from any thread; takes milliseconds.
    """
    works = tuple(works)
    oldest = heapq.nsmallest(MOST, works, key=lambda work: work.began)
    if lifespan is not None:
        oldest.insert(0, lifespan)
    return StuckReport(
        moment=moment,
        reason=reason,
        elapsed=elapsed,
        time_left=time_left,
        in_flight=len(works),
        works=tuple(stuck_work(work, now) for work in oldest),
        blocked=_blocked(loop_monitor),
        threads=tuple(thread_stacks()),
    )


def _blocked(loop_monitor: LoopMonitor | None) -> BlockedLoop | None:
    if loop_monitor is None or not (seconds := loop_monitor.blocked_for()):
        return None
    return BlockedLoop(
        seconds, not loop_monitor.seen, innermost(thread_frames(loop_monitor.thread))
    )
