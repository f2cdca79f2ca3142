"""The stuck report: what is in flight as its deadline comes near, or has passed. It only looks.

It is made in the event loop, or in the watchdog's thread where the loop is blocked.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from .._diagnostics.stacks import (
    ThreadStack,
    compressed,
    frames_of,
    innermost,
    thread_frames,
    thread_name,
    thread_stacks,
    working_thread,
)
from ..report import StuckWork, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._diagnostics.loop_monitor import LoopMonitor
    from .work import Work

Moment = Literal["grace period", "hard deadline"]
"""Which end the report comes before."""

AHEAD: Final = 1.0
"""Seconds from the report to the end of the grace period (half of that, if it is under two)."""

MOST: Final = 20
"""How many pieces of work are told of, the oldest first. A thousand help nobody."""


@dataclass(frozen=True, slots=True)
class BlockedLoop:
    """An event loop that does not go on."""

    seconds: float
    at_least: bool
    """Whether it was blocked already when somebody began to look."""
    where: str

    def __str__(self) -> str:
        more = "at least " if self.at_least else ""
        return f"event loop blocked for {more}{self.seconds:.1f} s at {self.where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckReport:
    """Everything that is known of what keeps a drain from its end."""

    moment: Moment
    reason: str
    """What began the drain."""
    elapsed: float
    """Seconds since then."""
    time_left: float
    """Seconds until the work is cancelled; 0 at the hard deadline."""
    in_flight: int
    works: tuple[StuckWork, ...]
    """The oldest of what is in flight, the oldest first."""
    blocked: BlockedLoop | None
    threads: tuple[ThreadStack, ...]

    def figures(self) -> dict[str, Any]:
        """Return it as what a JSON formatter can print: lists, dictionaries, strings, numbers."""
        return {
            "reason": self.reason,
            "elapsed": self.elapsed,
            "time_left": self.time_left,
            "in_flight": self.in_flight,
            "stuck": [_plain(asdict(work)) for work in self.works],
            "more": self.in_flight - len(self.works),
            "loop_blocked": None if self.blocked is None else asdict(self.blocked),
            "threads": [_plain(asdict(thread)) for thread in self.threads],
        }

    def lines(self) -> Iterator[str]:
        """Yield it as lines for a terminal, without the first, which says what it is about."""
        if self.blocked is not None:
            yield f"  {self.blocked}"
        for work in self.works:
            yield f"  stuck: {work}"
            yield from (f"    {name:<7} {value}" for name, value in _details(work))
        if self.in_flight > len(self.works):
            yield f"  stuck: {self.in_flight - len(self.works)} more"
        for thread in self.threads:
            yield f"  {printable(thread.name)}"
            yield from (f"    {printable(line)}" for line in thread.lines)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}


def _details(work: StuckWork) -> Iterator[tuple[str, str]]:
    """Yield what the line of *work* does not say, by its names."""
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

    Where it waits takes a look at its frames, some 0.1 ms: without *closely* that is left out.
    """
    frames = frames_of(work.coroutine()) if closely else []
    thread = working_thread(frames)
    frames += thread_frames(thread)  # a chain that ends in a thread goes on there
    return StuckWork(
        kind=work.kind,
        method=work.method,
        path=work.path,
        age=now - work.began,
        phase=work.progress,
        where=innermost(frames),
        route=work.route,
        client=work.client,
        sent=work.sent,
        chain=tuple(compressed(frames)),
        thread=thread_name(thread),
    )


def stuck_report(
    works: Iterable[Work],
    now: float,
    *,
    moment: Moment,
    reason: str,
    elapsed: float,
    time_left: float,
    loop_monitor: LoopMonitor | None,
) -> StuckReport:
    """Look at all *works* in flight. Safe from any thread; takes milliseconds."""
    works = tuple(works)
    oldest = heapq.nsmallest(MOST, works, key=lambda work: work.began)
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


def ahead(grace_period: float) -> float:
    """Return the seconds from the report to the end of a grace period."""
    return min(AHEAD, grace_period / 2)
