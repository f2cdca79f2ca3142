"""Verdicts in words: the rows of the closing table and the lines under it. Pure text."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, TypeAlias

from .counts import LOSS_KINDS, Counts
from .verdict import some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .finding import Finding
    from .verdict import Verdict

Tone: TypeAlias = Literal["good", "bad", "plain"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of the table, and its tone."""

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
    """Return the table: faults, all other requests, scenarios, the process.

    What is zero everywhere is left out where its absence says the same; scenarios that were run for
    no server are not in it (see `not_run`).
    """
    return [_faults(verdicts), _requests(verdicts), _scenarios(verdicts), _process(verdicts)]


def _faults(verdicts: Sequence[Verdict]) -> Section:
    rows = [_strong("LOST", verdicts, _lost)]
    if any(v.lost_total for v in verdicts):
        rows += _by_side(verdicts, _lost)
    rows += _present(
        verdicts, ((f"  {kind}", partial(_of_kind, "lost", kind)) for kind in LOSS_KINDS)
    )
    rows.append(_strong("WRONG", verdicts, _wrong))
    kinds = sorted({kind for v in verdicts for kind in v.total.wrong})
    rows += _present(verdicts, ((f"  {kind}", partial(_of_kind, "wrong", kind)) for kind in kinds))
    return rows


def _requests(verdicts: Sequence[Verdict]) -> Section:
    rows = [_counted("answered right", verdicts, _served), *_by_side(verdicts, _served)]
    rows += _present(
        verdicts,
        (
            ("rejected, as allowed", lambda counts: counts.rejected),
            ("dead before the write", lambda counts: counts.unsent),
            ("safe to send again", lambda counts: counts.retryable),
        ),
    )
    return [
        *rows,
        _row("refused, never sent", verdicts, lambda v: f"{v.load.refused:,}"),
        _row("slowest before it", verdicts, lambda v: f"{v.load.before.slowest:.2f} s"),
        _row("slowest after it", verdicts, lambda v: f"{v.load.at_risk.slowest:.2f} s"),
    ]


def _scenarios(verdicts: Sequence[Verdict]) -> Section:
    rows = []
    for name in _names(verdicts):
        findings = [v.finding(name) for v in verdicts]
        if any(found and found.result != "not run" for found in findings):
            rows.append(Row(name, tuple(_found(found) for found in findings)))
    return rows


def _process(verdicts: Sequence[Verdict]) -> Section:
    rows = [_row("gone after", verdicts, _gone), _row("exit code", verdicts, _exit_code)]
    if any(v.left_running for v in verdicts):
        rows.append(_row("left running", verdicts, _left_running))
    return rows


def right_answers(names: Sequence[str], verdicts: Sequence[Verdict]) -> list[str]:
    """Return the learned right answers: a line for each path, or for each server if they differ."""
    lines = []
    for what in dict.fromkeys(what for v in verdicts for what in v.expected):
        texts = [v.expected.get(what, "not asked") for v in verdicts]
        if len(set(texts)) == 1:
            lines.append(f"{what}: {texts[0]}")
        else:
            lines += [f"{what}: {text} ({name})" for name, text in zip(names, texts, strict=True)]
    return lines


def not_run(verdicts: Sequence[Verdict]) -> str:
    """Return the scenarios that were run for no server, each with the reason; may be empty."""
    reasons: dict[str, list[str]] = {}
    for name in _names(verdicts):
        findings = [found for v in verdicts if (found := v.finding(name))]
        if all(found.result == "not run" for found in findings):
            reasons.setdefault(findings[0].detail, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


def headline(name: str, verdict: Verdict, *, deadline: float) -> Cell:
    """Return the verdict on one server in a line."""
    if verdict.faults:
        return Cell(f"FAILED  {name}: {'; '.join(verdict.faults)}", "bad")
    if verdict.untested:
        return Cell(f"NOT JUDGED  {name}: not tested: {'; '.join(verdict.untested)}", "bad")
    return Cell(
        f"PASSED  {name}: nothing lost and nothing wrong of {some(verdict.total.sent, 'request')}, "
        f"gone {verdict.seconds_to_exit:.1f} s after the signal (deadline {deadline:g} s)",
        "good",
    )


def worth(verdict: Verdict) -> str:
    """Return how rare a loss has to be to have been missed; empty where one was found."""
    missed = verdict.missed_requests
    if missed is None:
        return "" if verdict.lost_total else "No request was at risk, so nothing is proven."
    return (
        f"{some(verdict.at_risk, 'request')} at risk (in flight at the signal or sent after it) in "
        f"{some(verdict.trials, 'stop')}, 0 lost: with 95 % confidence fewer than 1 in "
        f"{1 / missed:,.0f} such requests are lost, and fewer than {verdict.missed_stops:.0%} of "
        "stops lose any."
    )


def client_use(verdicts: Sequence[Verdict]) -> Cell:
    """Return what the clients took of the machine, and a warning where that was too much."""
    use = max((v.client for v in verdicts), key=lambda client: client.core)
    text = f"clients: {use.core:.0%} of a core, {use.machine:.0%} of this machine"
    if not any(v.is_client_busy for v in verdicts):
        return Cell(text)
    return Cell(
        f"{text}. They were the bottleneck, so the server had less load than it can bear: take "
        "fewer clients or a longer --think, or a machine with faster cores.",
        "bad",
    )


def exit_code(code: int) -> str:
    """Return an exit code, with the name of the signal that it stands for."""
    return str(code) if code >= 0 else f"{code} ({signal_name(-code)})"


def signal_name(number: int) -> str:
    """Return a signal's name; of a real-time signal, which has none, its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_lost = attrgetter("lost_total")
_wrong = attrgetter("wrong_total")
_served = attrgetter("served")


def _of_kind(figure: str, kind: str, counts: Counts) -> int:
    return int(getattr(counts, figure).get(kind, 0))


def _names(verdicts: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(found.scenario for v in verdicts for found in v.findings))


def _row(label: str, verdicts: Sequence[Verdict], tell: Callable[[Verdict], Cell | str]) -> Row:
    told = map(tell, verdicts)
    return Row(label, tuple(each if isinstance(each, Cell) else Cell(each) for each in told))


def _counted(label: str, verdicts: Sequence[Verdict], figure: Callable[[Counts], int]) -> Row:
    return _row(label, verdicts, lambda v: f"{figure(v.total):,}")


def _strong(label: str, verdicts: Sequence[Verdict], figure: Callable[[Counts], int]) -> Row:
    counts = [figure(verdict.total) for verdict in verdicts]
    cells = (Cell(f"{count:,}", "bad" if count else "good") for count in counts)
    return Row(label, tuple(cells), strong=True)


def _by_side(verdicts: Sequence[Verdict], figure: Callable[[Counts], int]) -> list[Row]:
    return [
        _row("  before the signal", verdicts, lambda v: f"{figure(v.load.before):,}"),
        _row("  in flight at it", verdicts, lambda v: f"{figure(v.load.during):,}"),
        _row("  sent after it", verdicts, lambda v: f"{figure(v.load.after):,}"),
    ]


def _present(
    verdicts: Sequence[Verdict], figures: Iterable[tuple[str, Callable[[Counts], int]]]
) -> list[Row]:
    return [
        _counted(label, verdicts, figure)
        for label, figure in figures
        if any(figure(verdict.total) for verdict in verdicts)
    ]


def _found(finding: Finding | None) -> Cell:
    if finding is None or finding.result == "not run":
        return Cell(f"not run: {finding.detail}" if finding else "not run")
    if finding.result == "untested":
        return Cell(f"NOT TESTED: {finding.text}", "bad")
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
