"""What a drain says in the log. The logger is `graceful_asgi`; nothing is logged per request.

Each record has an `event` (a name that stays the same) and its figures as `extra`, so a JSON
formatter needs no parsing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from typing import TYPE_CHECKING, Final

from .phase import Phase, PhaseChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ._core.stuck_report import StuckReport
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
    Phase.CANCELLING: "work in flight is cancelled",
    Phase.CLEANUP: "lifespan.shutdown runs",
    Phase.STOPPED: "done",
}

_LONG_LIVED: Final[Mapping[str, str]] = {"http": "event streams", "websocket": "WebSockets"}


def _say(level: int, message: str, *args: object, event: str, **figures: object) -> None:
    # The process is named in the text: the workers of one server log the same lines.
    extra = {"event": f"drain.{event}", **figures}
    with _going_on():
        logger.log(level, f"drain [%d]: {message}", os.getpid(), *args, extra=extra)


@contextlib.contextmanager
def _going_on() -> Iterator[None]:
    """Let a filter or handler that raises end no drain; say so where `logging` itself would."""
    try:
        yield
    except Exception:
        if logging.raiseExceptions:
            traceback.print_exc()


def phase_changed(change: PhaseChange) -> None:
    """Say that the drain has entered another phase."""
    _say(
        logging.INFO,
        "%s (%s): %s; %d in flight",
        change.phase.value,
        change.reason,
        _MEANING[change.phase],
        change.in_flight,
        event="phase",
        phase=change.phase.value,
        previous_phase=change.previous.value,
        reason=change.reason,
        in_flight=change.in_flight,
    )


def ending(kinds: Mapping[str, int], period: float) -> None:
    """Say what is ended over the lame duck, because it would not end by itself."""
    what = " and ".join(f"{count} {_LONG_LIVED[kind]}" for kind, count in sorted(kinds.items()))
    _say(logging.INFO, "ending %s over %.1f s", what, period, event="ending", **kinds)


def stop_follows(what: str, began_by: str) -> None:
    """Say that a drain which was waiting for a stop has got one."""
    _say(
        logging.INFO,
        "%s ends the process after the drain begun by %s",
        what,
        began_by,
        event="stop",
        trigger=what,
        reason=began_by,
    )


def progress(statistics: DrainStatistics) -> None:
    """Say how the drain goes on: how much is in flight, the oldest of it, the time left."""
    oldest = statistics.oldest
    _say(
        logging.INFO,
        "%s: %d in flight, %.1f s left%s",
        statistics.phase.value,
        statistics.in_flight,
        statistics.time_left,
        f", oldest: {oldest}" if oldest is not None else "",
        event="progress",
        phase=statistics.phase.value,
        in_flight=statistics.in_flight,
        oldest_age=oldest.age if oldest is not None else 0.0,
        time_left=statistics.time_left,
    )


def held(outcome: str, statistics: DrainStatistics) -> None:
    """Log what became of a drain that waits for a stop."""
    _say(
        logging.WARNING if outcome == "forced" else logging.INFO,
        "%s (%s): %s; waits for a stop or a resume",
        "drained" if outcome == "clean" else outcome,
        statistics.reason,
        f"{statistics.in_flight} in flight" if statistics.in_flight else "nothing in flight",
        event="held",
        outcome=outcome,
        reason=statistics.reason,
        in_flight=statistics.in_flight,
    )


def finished(report: DrainReport) -> None:
    """Say what the drain came to, in one line."""
    _say(
        logging.WARNING if report.exit_code else logging.INFO,
        "%s after %.1f s (%s): %d completed, %d cancelled, %d aborted, %d rejected",
        "clean" if report.clean else "forced",
        report.elapsed,
        report.reason,
        report.completed,
        report.cancelled,
        report.aborted,
        report.rejected,
        event="report",
        clean=report.clean,
        reason=report.reason,
        completed=report.completed,
        cancelled=report.cancelled,
        aborted=report.aborted,
        rejected=report.rejected,
        elapsed=report.elapsed,
        exit_code=report.exit_code,
    )


def stuck(work: StuckWork) -> None:
    """Name a piece of work whose deadline has passed."""
    _say(
        logging.WARNING,
        "stuck: %s",
        work,
        event="stuck",
        kind=work.kind,
        method=work.method,
        path=work.path,
        age=work.age,
        progress=work.phase,
        where=work.where,
    )


def all_stuck(works: Sequence[StuckWork]) -> None:
    """Name what is stuck, the oldest first; a thousand lines help nobody."""
    for work in sorted(works, key=lambda work: -work.age)[:STUCK_LINES]:
        stuck(work)
    if len(works) > STUCK_LINES:
        more = len(works) - STUCK_LINES
        _say(logging.WARNING, "stuck: %d more", more, event="stuck_more", more=more)


def stuck_report(report: StuckReport) -> None:
    """Say in one record what keeps a drain from its end, with everything that is known of it."""
    if report.moment == "hard deadline":
        level, event = logging.ERROR, "hard_deadline"
        head = f"hard deadline: {report.elapsed:.1f} s after {report.reason} the process ends now"
    else:
        level, event = logging.WARNING, "stuck_report"
        head = f"{report.time_left:.1f} s until work is cancelled ({report.reason})"
    lines = [f"{head}, {report.in_flight} still in flight", *report.lines()]
    _say(level, "%s", "\n".join(lines), event=event, **report.figures())


def hooked(what: str, policy: DrainPolicy) -> None:
    """Say that the server was found, and what it will do when told to stop."""
    _say(
        logging.INFO,
        "hooked %s: lame duck %g s, grace %g s, cancel %g s, cleanup %g s",
        what,
        policy.lame_duck_period,
        policy.grace_period,
        policy.cancel_period,
        policy.cleanup_period,
        event="hooked",
        server=what,
    )


def passive(why: str) -> None:
    """Say that there is no server edge: nothing is held, closed or ended by a deadline."""
    _say(
        logging.WARNING,
        "passive, %s: requests are counted and told to close, the server stops as it always does",
        why,
        event="passive",
        why=why,
    )


def ignored(what: str, phase: Phase) -> None:
    """Say that a trigger changed nothing, and why."""
    _say(
        logging.INFO,
        "%s ignored, already %s",
        what,
        phase.value,
        event="ignored",
        trigger=what,
        phase=phase.value,
    )


def supervision(event: str, message: str, *args: object, level: int = logging.INFO) -> None:
    """Say what the parent of the workers does, or has seen of them."""
    extra = {"event": f"supervisor.{event}"}
    with _going_on():
        logger.log(level, f"supervisor [%d]: {message}", os.getpid(), *args, extra=extra)


def caution(message: str, *args: object) -> None:
    """Say that something is not as it should be, and that the drain goes on."""
    _say(logging.WARNING, message, *args, event="caution")


def failed(message: str, *args: object) -> None:
    """Say that something raised, with its traceback. Call it from the `except` block."""
    with _going_on():
        logger.exception(
            f"drain [%d]: {message}", os.getpid(), *args, extra={"event": "drain.failed"}
        )


def detail(message: str, *args: object) -> None:
    """Say what is of interest only to who debugs a drain."""
    _say(logging.DEBUG, message, *args, event="detail")
