"""The stuck report: what is in flight as its deadline comes near, or has passed, and its text.

It is made in the event loop, or in the watchdog's thread where the loop is blocked.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import log
from .._diagnostics.stacks import compressed, innermost, thread_frames, thread_name, thread_stacks
from .._diagnostics.trail import Trail, trail_of
from ..report import StuckWork
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._diagnostics.loop_monitor import LoopMonitor
    from .._diagnostics.stacks import ThreadStack
    from ..report import Moment
    from .drain import Drain
    from .work import Work


class BlockedLoop(NamedTuple):
    """An event loop that is blocked."""

    seconds: float
    at_least: bool
    """True if the loop was blocked already when it was first checked."""
    where: str

    def __str__(self) -> str:
        more = "at least " if self.at_least else ""
        where = printable(self.where)
        return f"event loop blocked for {more}{self.seconds:.1f} s at {where}"


class StuckReport(NamedTuple):
    """The work, threads and event loop that keep a drain from its end."""

    moment: Moment
    reason: str
    """The trigger that began the drain."""
    stopped_by: str
    """The trigger that asked for the end of the process; often the same one."""
    cut_short: bool
    """True if work was cancelled before the end of the grace period."""
    elapsed: float
    """Seconds since the drain began."""
    time_left: float
    """Seconds until the work is cancelled; 0 where the process ends."""
    in_flight: int
    works: tuple[StuckWork, ...]
    """The app's startup or shutdown, if that runs; then the oldest of what is in flight."""
    blocked: BlockedLoop | None
    threads: tuple[ThreadStack, ...]

    @property
    def head(self) -> str:
        """The first line."""
        reason, stopped_by = printable(self.reason), printable(self.stopped_by)
        after = f"{self.elapsed:.1f} s after {reason}"
        if stopped_by not in ("", reason):
            after += f", ended by {stopped_by},"
        match self.moment:
            case "hard deadline":
                early = ": the grace period was cut short" if self.cut_short else ""
                head = f"hard deadline: {after} the process ends now{early}"
            case "interrupt":
                head = f"interrupted again: {after} the process ends now, before its hard deadline"
            case "grace period":
                cause = log.cause(reason, stopped_by)
                head = f"{self.time_left:.1f} s until work is cancelled ({cause})"
        return f"{head}, {self.in_flight} still in flight"

    @property
    def more(self) -> int:
        """The number of pieces of work in flight that are not described."""
        return self.in_flight - sum(work.kind != "lifespan" for work in self.works)

    def figures(self) -> dict[str, Any]:
        """Return the report in types that a JSON formatter can print."""
        return {
            "reason": self.reason,
            "stopped_by": self.stopped_by,
            "cut_short": self.cut_short,
            "elapsed": self.elapsed,
            "time_left": self.time_left,
            "in_flight": self.in_flight,
            "stuck": [asdict(work) for work in self.works],
            "more": self.more,
            "loop_blocked": None if self.blocked is None else self.blocked._asdict(),
            "threads": [thread._asdict() for thread in self.threads],
        }

    def write(self) -> None:
        """Write the report to the log, in one record."""
        log.stuck_report(self.moment, self.head, self.lines(), self.figures())

    def lines(self) -> Iterator[str]:
        """Yield the other lines."""
        if self.blocked is not None:
            yield f"  {self.blocked}"
        for work in self.works:
            yield f"  stuck: {work}"
            yield from (f"    {name:<7} {value}" for name, value in _details(work))
        if self.more:
            yield f"  stuck: {self.more} more"
        for thread in self.threads:
            yield f"  {printable(thread.name)}"
            yield from (f"    {printable(line)}" for line in thread.lines)


def _details(work: StuckWork) -> Iterator[tuple[str, str]]:
    """Yield the names and values that the line of *work* leaves out."""
    begun = work.sent is not None and work.phase != "response not started"
    sent = f"{work.sent:,} bytes of the body" if begun else ""
    for name, value in (("route", work.route), ("client", work.client), ("sent", sent)):
        if value:
            yield name, printable(value)
    if work.thread:
        yield "thread", printable(work.thread)
    for number, line in enumerate(work.chain):
        yield "" if number else "waits", printable(line)


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
    drain: Drain,
    now: float,
    *,
    moment: Moment,
    time_left: float,
    loop_monitor: LoopMonitor | None,
) -> StuckReport:
    """Look at all *works* in flight, and at the app's startup or shutdown where that runs.

    Safe from any thread; takes milliseconds.
    """
    works = tuple(works)
    oldest = heapq.nsmallest(log.MOST_STUCK, works, key=lambda work: work.began)
    if lifespan is not None:
        oldest.insert(0, lifespan)
    return StuckReport(
        moment=moment,
        reason=drain.reason,
        stopped_by=drain.stopped_by or "",
        cut_short=drain.cut_short,
        elapsed=drain.elapsed(now),
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
