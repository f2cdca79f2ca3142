"""Logs the events of a drain: logger `graceful_asgi`, one line per event, nothing per request.

Each record carries a stable event name and its figures as `extra`, under names that begin with
`graceful.`: a JSON formatter needs no parsing, and no key of another library is overwritten
(`event` is structlog's key for the message). `log_writer` brings the records to the log.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .log_writer import Escaped, Writer, escaped, note_failure, plain, traceback_of
from .phase import Phase, PhaseChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .policy import DrainPolicy
    from .report import DrainOutcome, DrainReport, DrainStatistics, Moment, StuckWork

logger: Final = logging.getLogger("graceful_asgi")

MUTED: Final = logging.Logger("graceful_asgi.muted", logging.CRITICAL + 1)
"""Writes nothing. Replaces a server's logger where its next lines would only repeat, with a
traceback, what the stuck report says."""

PREFIX: Final = "graceful."
"""The beginning of the name of every extra. stamina prefixes its extras in the same way."""

PROGRESS_PERIOD: Final = 5.0
"""Seconds between two progress lines: often enough to watch, seldom enough to read."""

MOST_STUCK: Final = 20
"""The pieces of stuck work to describe, the oldest first. Nobody reads a thousand."""

_LONG_LIVED: Final[Mapping[str, str]] = {"http": "event stream", "websocket": "WebSocket"}

_writer: Final = Writer(logger)

follow = _writer.follow
start = _writer.start
stop = _writer.stop
flush = _writer.flush
is_written = _writer.is_written


def cause(reason: str, stopped_by: str) -> str:
    """Return in words what began a drain, and what has made it end the process."""
    return f"{stopped_by} after {reason}" if stopped_by not in ("", reason) else reason


def phase_changed(change: PhaseChange) -> None:
    """Log that the drain has entered another phase, and how long this phase may last."""
    _drain(
        logging.INFO,
        "%s (%s): %s",
        change.phase.value,
        ("after " if change.phase is Phase.SERVING else "")
        + cause(change.reason, change.stopped_by),
        _meaning(change),
        event="phase",
        phase=change.phase.value,
        previous_phase=change.previous.value,
        reason=change.reason,
        stopped_by=change.stopped_by,
        in_flight=change.in_flight,
        time_left=change.time_left,
    )


def _meaning(change: PhaseChange) -> str:
    left, count = change.time_left, change.in_flight
    period = f" for up to {left:.3g} s" if math.isfinite(left) else ""
    match change.phase:
        case Phase.SERVING:
            return f"serving as before; {count} in flight"
        case Phase.LAME_DUCK if not left:
            return f"skipped, because no router needs time to notice; {count} in flight"
        case Phase.LAME_DUCK:
            period = period or " until a stop or a resume"
            return f"accepting{period}, responses say Connection: close; {count} in flight"
        case Phase.DRAINING:
            return f"the listener closes, work in flight goes on{period}; {count} in flight"
        case Phase.CANCELLING:
            return f"work in flight is cancelled, and unwinds{period}; {count} in flight"
        case Phase.CLEANUP:
            given_up = f"; {count} still in flight, given up" if count else ""
            return f"lifespan.shutdown runs{period}{given_up}"
        case Phase.STOPPED:
            return f"{count} still in flight, given up" if count else "nothing is left in flight"


def closing(kinds: Mapping[str, int], period: float) -> None:
    """Log how many WebSockets and event streams the lame duck closes, because they are endless."""
    what = " and ".join(
        f"{count} {_LONG_LIVED[kind]}{'s' * (count != 1)}" for kind, count in sorted(kinds.items())
    )
    _drain(logging.INFO, "closing %s over %.1f s", what, period, event="closing", exc=None, **kinds)


def stop_follows(what: str, began_by: str) -> None:
    """Log that a drain which was waiting for a stop has got one."""
    _drain(
        logging.INFO,
        "%s ends the process after the drain begun by %s",
        what,
        began_by,
        event="stop",
        trigger=what,
        reason=began_by,
    )


def progress(statistics: DrainStatistics) -> None:
    """Log the progress of the drain: how much is in flight, the oldest of it, the time left."""
    oldest, left = statistics.oldest, statistics.time_left
    _drain(
        logging.INFO,
        "%s: %d in flight, %s%s",
        statistics.phase.value,
        statistics.in_flight,
        f"{left:.1f} s left" if math.isfinite(left) else "waiting for a stop",
        f", oldest: {oldest}" if oldest is not None else "",
        event="progress",
        phase=statistics.phase.value,
        in_flight=statistics.in_flight,
        oldest_age=oldest.age if oldest is not None else 0.0,
        time_left=left,
    )


def held(outcome: DrainOutcome, statistics: DrainStatistics) -> None:
    """Log the outcome of a drain that does not end the process, and now waits for a stop."""
    count = statistics.in_flight
    text = f"not drained, {count} still in flight" if count else "drained"
    _drain(
        logging.INFO if outcome == "clean" else logging.WARNING,
        "%s%s after %.1f s (%s): waiting for a stop or a resume",
        text,
        "" if count or outcome == "clean" else ", with work cut short",
        statistics.elapsed,
        statistics.reason,
        event="held",
        outcome=outcome,
        reason=statistics.reason,
        in_flight=count,
        elapsed=statistics.elapsed,
    )


def finished(report: DrainReport) -> None:
    """Log the result of the drain, in one line."""
    names = ("completed", "closed", "cancelled", "aborted", "rejected")
    counts = {name: getattr(report, name) for name in names}
    errors = report.server_errors
    _drain(
        logging.WARNING if report.exit_code else logging.INFO,
        "%s after %.1f s (%s): %d completed, %d closed, %d cancelled, %d aborted, %d rejected%s",
        "clean" if report.clean else "forced",
        report.elapsed,
        cause(report.reason, report.stopped_by),
        *counts.values(),
        f"; {errors} of the completed with a server error" if errors else "",
        event="report",
        clean=report.clean,
        reason=report.reason,
        stopped_by=report.stopped_by,
        elapsed=report.elapsed,
        exit_code=report.exit_code,
        server_errors=errors,
        **counts,
    )


def stuck(work: StuckWork) -> None:
    """Name a piece of work whose deadline has passed."""
    _drain(
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
    """Name stuck work, the oldest first. After some lines the rest is only counted."""
    for work in sorted(works, key=lambda work: -work.age)[:MOST_STUCK]:
        stuck(work)
    if len(works) > MOST_STUCK:
        more = len(works) - MOST_STUCK
        _drain(logging.WARNING, "stuck: %d more", more, event="stuck_more", more=more)


def stuck_report(
    moment: Moment, head: str, lines: Iterable[str], figures: Mapping[str, Any]
) -> None:
    """Log in one record everything that keeps a drain from its end."""
    level, event = {
        "grace period": (logging.WARNING, "stuck_report"),
        "hard deadline": (logging.ERROR, "hard_deadline"),
        "interrupt": (logging.ERROR, "interrupted"),
    }[moment]
    _drain_lines(level, head, lines, event=event, **figures)


def lingering(waits_for: str, stacks: Iterable[str], *, seconds: float, left: float) -> None:
    """Log that the drain is over and the process is not, and what the process waits for."""
    head = (
        f"the drain is over, and {seconds:.1f} s later the process still waits for {waits_for}; "
        f"it will be ended in {left:.1f} s"
    )
    figures = {"waits_for": waits_for, "seconds": seconds, "time_left": left}
    _drain_lines(logging.WARNING, head, stacks, event="lingering", **figures)


def exit_overdue(waits_for: str, stacks: Iterable[str], *, seconds: float) -> None:
    """Log that the process ends now, without what it waits for."""
    head = (
        f"hard deadline: {seconds:.1f} s after its drain the process ends now; it still waits for "
        f"{waits_for}"
    )
    figures = {"waits_for": waits_for, "seconds": seconds}
    _drain_lines(logging.ERROR, head, stacks, event="hard_deadline", **figures)


def hooked(what: str, policy: DrainPolicy, origins: Sequence[str] = ()) -> None:
    """Log that the server was found, and the periods of its drain.

    *origins* names where each option that is not the default came from.
    """
    _drain(
        logging.INFO,
        "hooked %s: lame duck %g s, grace %g s, cancel %g s, cleanup %g s%s",
        what,
        policy.lame_duck_period,
        policy.grace_period,
        policy.cancel_period,
        policy.cleanup_period,
        _given(origins),
        event="hooked",
        server=what,
        options=list(origins),
    )


def passive(why: str, origins: Sequence[str] = ()) -> None:
    """Log that there is no server to act on: no connection is closed, and no deadline is kept."""
    _drain(
        logging.INFO,
        "passive, %s: requests are counted, and the server stops as it always does%s",
        why,
        _given(origins),
        event="passive",
        why=why,
        options=list(origins),
    )


def _given(origins: Sequence[str]) -> str:
    return f"; {', '.join(origins)}" if origins else ""


def refused(message: str, *args: object) -> None:
    """Log that an option was given that is not allowed."""
    _drain(logging.ERROR, message, *args, event="refused")


def ignored(what: str, phase: Phase) -> None:
    """Log that a trigger changed nothing, and why."""
    _drain(
        logging.INFO,
        "%s ignored, already %s",
        what,
        phase.value,
        event="ignored",
        trigger=what,
        phase=phase.value,
    )


def caution(message: str, *args: object) -> None:
    """Log that something is not as it should be, and that the drain goes on."""
    _drain(logging.WARNING, message, *args, event="caution")


def failed(message: str, *args: object) -> None:
    """Log that something raised, with its traceback. Call it from the `except` block."""
    _drain(logging.ERROR, message, *args, event="failed", exc=sys.exc_info()[1])


@contextlib.contextmanager
def caught(message: str, *args: object) -> Iterator[None]:
    """Log whatever the block raises, as `failed` does, and go on.

    For code of the program that a drain calls. That includes `SystemExit` and `CancelledError`,
    which come out of a hook that asks a cancelled future for its result: a synchronous call is
    never the one that a loop cancels.
    """
    try:
        yield
    except BaseException:
        failed(message, *args)


def detail(message: str, *args: object) -> None:
    """Log a detail that only the debugging of a drain needs."""
    _drain(logging.DEBUG, message, *args, event="detail")


def supervision(event: str, message: str, *args: object, level: int = logging.INFO) -> None:
    """Log what the parent of the workers does, or what has happened to a worker."""
    _write("supervisor", level, message, *args, event=event)


def _drain_lines(
    level: int, head: str, lines: Iterable[str], *, event: str, **figures: Any
) -> None:
    # The lines are escaped one by one: the line breaks between them are ours.
    _drain(level, "%s", Escaped("\n".join([head, *lines])), event=event, **figures)


def _write(
    who: str,
    level: int,
    message: str,
    *args: object,
    event: str,
    exc: BaseException | None = None,
    **figures: object,
) -> None:
    if not _writer.is_enabled_for(level):
        return
    figures["event"] = f"{who}.{event}"
    try:
        record = logger.makeRecord(
            logger.name,
            level,
            __file__,
            0,
            f"{who} [%d]: {message}",
            # The process is named in the text: the workers of one server log the same lines.
            (os.getpid(), *map(escaped, args)),
            None if exc is None else (type(exc), exc, exc.__traceback__),
            extra={PREFIX + name: plain(value) for name, value in figures.items()},
        )
        if exc is not None:
            record.exc_text = traceback_of(exc)  # a formatter prints this text as it is
    except BaseException:  # from a program's own factory of records
        note_failure()
    else:
        _writer.write(record)


_drain: Final = partial(_write, "drain")
