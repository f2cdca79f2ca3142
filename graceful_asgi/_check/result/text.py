"""Verdicts in words: the rows of the closing table and the lines under it. Pure text."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .counts import LOSS_KINDS, LossKind
from .verdict import some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .counts import Counts
    from .finding import Finding
    from .verdict import Verdict

Tone: TypeAlias = Literal["good", "bad", "plain"]

SIDES_NOTE: Final = (
    "a / b / c: written and answered before the signal, in flight at it, written after it"
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure, and whether it is good news."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Row:
    """A label and one cell for each server."""

    label: str
    cells: tuple[Cell, ...]
    strong: bool = False


Section: TypeAlias = list[Row]


def sections(verdicts: Sequence[Verdict]) -> list[Section]:
    """The table: requests, scenarios, the process. What is zero everywhere is left out where its
    absence says the same; scenarios that were run for no server are not in it (see `not_run`).
    """
    return [_requests(verdicts), _scenarios(verdicts), _process(verdicts)]


def _requests(verdicts: Sequence[Verdict]) -> Section:
    rows = [
        _row("served", verdicts, lambda v: _by_side(v, lambda c: c.served)),
        Row("LOST", tuple(_lost(v) for v in verdicts), strong=True),
    ]
    if any(v.lost_total for v in verdicts):
        rows.append(_row("  by side", verdicts, lambda v: _by_side(v, lambda c: c.lost_total)))
    rows += [
        _kind(kind, verdicts) for kind in LOSS_KINDS if any(kind in v.total.lost for v in verdicts)
    ]
    if any(v.total.errors for v in verdicts):
        rows.append(_row("answered with an error", verdicts, _errors))
    optional: list[tuple[str, Callable[[Counts], int]]] = [
        ("rejected on purpose", lambda c: c.rejected),
        ("dead before the write", lambda c: c.unsent),
        ("retryable (pipelined)", lambda c: c.retryable),
    ]
    for label, figure in optional:
        if any(figure(v.total) for v in verdicts):
            rows.append(Row(label, tuple(Cell(f"{figure(v.total):,}") for v in verdicts)))
    rows.append(_row("refused (never sent)", verdicts, lambda v: f"{v.refused:,}"))
    return rows


def _scenarios(verdicts: Sequence[Verdict]) -> Section:
    rows = []
    for name in _names(verdicts):
        findings = [v.finding(name) for v in verdicts]
        if any(found and found.result != "not run" for found in findings):
            rows.append(Row(name, tuple(_found(found) for found in findings)))
    return rows


def _process(verdicts: Sequence[Verdict]) -> Section:
    rows = [
        Row("gone after", tuple(_gone(v) for v in verdicts)),
        _row("exit code", verdicts, _exit_code),
    ]
    if any(v.left_running for v in verdicts):
        rows.append(Row("left running", tuple(_left_running(v) for v in verdicts)))
    return rows


def not_run(verdicts: Sequence[Verdict]) -> str:
    """The scenarios that were run for no server, each with the reason; may be empty."""
    reasons: dict[str, list[str]] = {}
    for name in _names(verdicts):
        findings = [found for v in verdicts if (found := v.finding(name))]
        if all(found.result == "not run" for found in findings):
            reasons.setdefault(findings[0].detail, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


def headline(name: str, verdict: Verdict, *, deadline: float) -> Cell:
    """The verdict on one server in a line."""
    if verdict.faults:
        return Cell(f"FAILED  {name}: {'; '.join(verdict.faults)}", "bad")
    return Cell(
        f"PASSED  {name}: nothing lost of {verdict.sent:,} requests, "
        f"gone {verdict.seconds_to_exit:.1f} s after the signal (deadline {deadline:g} s)",
        "good",
    )


def exit_code(code: int) -> str:
    """An exit code, with the name of the signal that it stands for."""
    return str(code) if code >= 0 else f"{code} ({signal_name(-code)})"


def signal_name(number: int) -> str:
    """A signal's name; of a real-time signal, which has none, its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _names(verdicts: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(found.scenario for v in verdicts for found in v.findings))


def _row(label: str, verdicts: Sequence[Verdict], text: Callable[[Verdict], str]) -> Row:
    return Row(label, tuple(Cell(text(verdict)) for verdict in verdicts))


def _by_side(verdict: Verdict, figure: Callable[[Counts], int]) -> str:
    load = verdict.load
    return " / ".join(f"{figure(counts):,}" for counts in (load.before, load.during, load.after))


def _kind(kind: LossKind, verdicts: Sequence[Verdict]) -> Row:
    return _row(f"  {kind}", verdicts, lambda v: f"{v.total.lost.get(kind, 0):,}")


def _lost(verdict: Verdict) -> Cell:
    return Cell(f"{verdict.lost_total:,}", "bad" if verdict.lost_total else "good")


def _errors(verdict: Verdict) -> str:
    errors = sorted(verdict.total.errors.items())
    return ", ".join(f"{n:,} x {status}" for status, n in errors) or "0"


def _found(finding: Finding | None) -> Cell:
    if finding is None or finding.result == "not run":
        return Cell(f"not run: {finding.detail}" if finding else "not run")
    if finding.failed:
        return Cell(f"FAILED: {finding.text}", "bad")
    return Cell(f"ok: {finding.text}", "good")


def _gone(verdict: Verdict) -> Cell:
    if verdict.late:
        return Cell("not by the deadline", "bad")
    return Cell(f"{verdict.seconds_to_exit:.2f} s")


def _exit_code(verdict: Verdict) -> str:
    codes = dict.fromkeys(end.code for end in verdict.ends)
    return ", ".join(exit_code(code) for code in codes)


def _left_running(verdict: Verdict) -> Cell:
    text = some(verdict.left_running, "process", "processes")
    return Cell(text, "bad" if verdict.left_running else "plain")
