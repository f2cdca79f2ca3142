"""What a drain says in the log. The logger is `graceful_asgi`; nothing is logged per request.

Each record has an `event` (a name that stays the same) and its figures as `extra`, so a JSON
formatter needs no parsing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .phase import Phase, PhaseChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .policy import DrainPolicy
    from .report import DrainReport, DrainStatistics, StuckWork

logger: Final = logging.getLogger("graceful_asgi")

PROGRESS_PERIOD: Final = 5.0
"""Seconds between two progress lines: often enough to watch, seldom enough to read."""

STUCK_LINES: Final = 20

_MEANING: Final = {
    Phase.SERVING: "serving again",
    Phase.LAME_DUCK: "still accepting, every response says Connection: close",
    Phase.DRAINING: "listener closes, work in flight goes on",
    Phase.CANCELLING: "grace period is over, cancelling",
    Phase.CLEANUP: "nothing to wait for any more, lifespan.shutdown runs",
    Phase.STOPPED: "done",
}


def phase_changed(change: PhaseChange) -> None:
    """Say that the drain has entered another phase."""
    logger.info(
        "%s (%s): %s; %d in flight",
        change.phase.value,
        change.reason,
        _MEANING[change.phase],
        change.in_flight,
        extra={
            "event": "drain.phase",
            "phase": change.phase.value,
            "previous_phase": change.previous.value,
            "reason": change.reason,
            "in_flight": change.in_flight,
        },
    )


def stop_follows(what: str, began_by: str) -> None:
    """Say that a drain which was waiting for a stop has got one."""
    logger.info(
        "%s: the drain begun by %s now ends the process",
        what,
        began_by,
        extra={"event": "drain.stop", "trigger": what, "reason": began_by},
    )


def progress(statistics: DrainStatistics) -> None:
    """Say how the drain goes on: how much is in flight, the oldest of it, the time left."""
    oldest = statistics.oldest
    logger.info(
        "%s: %d in flight%s; %.1f s left",
        statistics.phase.value,
        statistics.in_flight,
        f", oldest {oldest}" if oldest is not None else "",
        statistics.time_left,
        extra={
            "event": "drain.progress",
            "phase": statistics.phase.value,
            "in_flight": statistics.in_flight,
            "oldest_age": oldest.age if oldest is not None else 0.0,
            "time_left": statistics.time_left,
        },
    )


def finished(report: DrainReport) -> None:
    """Say what the drain came to: one line, and one more for each stuck piece of work."""
    logger.log(
        logging.INFO if report.clean else logging.WARNING,
        "drained %s after %.1f s (%s): %d completed, %d cancelled, %d aborted, %d rejected",
        "clean" if report.clean else "by force",
        report.elapsed,
        report.reason,
        report.completed,
        report.cancelled,
        report.aborted,
        report.rejected,
        extra={
            "event": "drain.report",
            "clean": report.clean,
            "reason": report.reason,
            "completed": report.completed,
            "cancelled": report.cancelled,
            "aborted": report.aborted,
            "rejected": report.rejected,
            "elapsed": report.elapsed,
        },
    )


def stuck(work: StuckWork) -> None:
    """Name a piece of work whose deadline has passed."""
    logger.warning(
        "stuck: %s",
        work,
        extra={
            "event": "drain.stuck",
            "kind": work.kind,
            "method": work.method,
            "path": work.path,
            "age": work.age,
            "progress": work.phase,
            "where": work.where,
        },
    )


def hooked(what: str, policy: DrainPolicy) -> None:
    """Say that the server was found, and what it will do when told to stop."""
    logger.info(
        "hooked %s: lame duck %g s, grace %g s, cancel %g s, cleanup %g s",
        what,
        policy.lame_duck_period,
        policy.grace_period,
        policy.cancel_period,
        policy.cleanup_period,
        extra={"event": "drain.hooked", "server": what},
    )


def passive(why: str) -> None:
    """Say that there is no server edge: nothing is held, closed or ended by a deadline."""
    logger.warning(
        "passive: %s; requests are counted and told to close, the server stops as it always does",
        why,
        extra={"event": "drain.passive", "why": why},
    )


def deadline_passed(report: DrainReport, works: Sequence[StuckWork], stacks: Iterable[str]) -> None:
    """Say, at the hard deadline, what has kept the process from ending."""
    logger.error(
        "hard deadline: the process ends now, %.1f s after %s, %d still in flight",
        report.elapsed,
        report.reason,
        len(works),
        extra={
            "event": "drain.hard_deadline",
            "reason": report.reason,
            "elapsed": report.elapsed,
            "in_flight": len(works),
        },
    )
    all_stuck(works)
    for stack in stacks:
        logger.error("%s", stack, extra={"event": "drain.stack"})


def all_stuck(works: Sequence[StuckWork]) -> None:
    """Name what is stuck, the oldest first; a thousand lines help nobody."""
    for work in sorted(works, key=lambda work: -work.age)[:STUCK_LINES]:
        stuck(work)
    if len(works) > STUCK_LINES:
        logger.warning(
            "stuck: %d more", len(works) - STUCK_LINES, extra={"event": "drain.stuck_more"}
        )


def hook_failed(hook: object) -> None:
    """Say that a hook raised. Call it from the `except` block."""
    logger.exception("hook %r failed; the drain goes on", hook, extra={"event": "drain.hook"})


def ignored(what: str, phase: Phase) -> None:
    """Say that a trigger changed nothing, and why."""
    logger.info(
        "%s ignored: already %s",
        what,
        phase.value,
        extra={"event": "drain.ignored", "trigger": what, "phase": phase.value},
    )
