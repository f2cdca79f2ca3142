"""Verdicts in words: the rows of the closing table and the sentence under it. Pure text."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeAlias

from graceful_asgi.check.counts import LOSS_KINDS, LossKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graceful_asgi.check.verdict import Verdict

Row: TypeAlias = tuple[str, tuple[str, ...]]


def rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """A label and one cell per verdict. A row that is zero everywhere is left out where its
    absence says the same: kinds of loss, dead connections, 5xx.
    """
    table = [
        _row("served, sent before the signal", verdicts, lambda v: f"{v.served_before:,}"),
        _row("served, sent after the signal", verdicts, lambda v: f"{v.served_after:,}"),
        _row("lost", verdicts, lambda v: f"{v.lost_total:,}"),
    ]
    if any(verdict.lost_total for verdict in verdicts):
        table += [
            _row("  on a reused connection", verdicts, lambda v: f"{v.lost_on_reuse:,}"),
            _row("  on a fresh connection", verdicts, lambda v: f"{v.lost_on_fresh:,}"),
        ]
    table += [
        _kind_row(kind, verdicts) for kind in LOSS_KINDS if any(v.lost[kind] for v in verdicts)
    ]
    table.append(_row("refused (never sent)", verdicts, lambda v: f"{v.refused:,}"))
    if any(verdict.unsent for verdict in verdicts):
        table.append(_row("dead at the write (never sent)", verdicts, lambda v: f"{v.unsent:,}"))
    if any(verdict.rejected for verdict in verdicts):
        table.append(_row("rejected on purpose", verdicts, lambda v: f"{v.rejected:,}"))
    if any(verdict.errors for verdict in verdicts):
        table.append(_row("answered with an error", verdicts, _errors))
    return [
        *table,
        _row("slow request", verdicts, lambda v: v.slow),
        _row("stream", verdicts, lambda v: v.stream),
        _row("seconds to exit", verdicts, lambda v: f"{v.seconds_to_exit:.2f}"),
        _row("exit code", verdicts, _exit_code),
    ]


def sentence(plain: Verdict, graceful: Verdict) -> str:
    """What the two verdicts show, in one sentence that follows from their figures alone."""
    return (
        f"Told to stop under load, plain uvicorn {_conduct(plain)}; "
        f"with graceful_asgi it {_conduct(graceful)}."
    )


def _conduct(verdict: Verdict) -> str:
    parts = [_losses(verdict), f"served {verdict.served_after:,} sent after the signal"]
    if verdict.unsent:
        parts.append(f"left {verdict.unsent:,} connections dead before their request was written")
    if verdict.errors:
        parts.append(f"answered {sum(verdict.errors.values()):,} with an error")
    end = "was killed" if verdict.killed else f"exited with code {_exit_code(verdict)}"
    return f"{', '.join(parts)} and {end} after {verdict.seconds_to_exit:.1f} s"


def _losses(verdict: Verdict) -> str:
    if not verdict.lost_total:
        return f"lost none of {verdict.sent:,} requests"
    where = (
        f"{verdict.lost_on_reuse:,} on reused connections, {verdict.lost_on_fresh:,} on fresh ones"
    )
    return f"lost {verdict.lost_total:,} of {verdict.sent:,} requests ({where})"


def _row(label: str, verdicts: Sequence[Verdict], cell: Callable[[Verdict], str]) -> Row:
    return label, tuple(cell(verdict) for verdict in verdicts)


def _kind_row(kind: LossKind, verdicts: Sequence[Verdict]) -> Row:
    return _row(f"  by kind: {kind}", verdicts, lambda v: f"{v.lost[kind]:,}")


def _errors(verdict: Verdict) -> str:
    return ", ".join(f"{n:,} x {status}" for status, n in sorted(verdict.errors.items())) or "0"


def _exit_code(verdict: Verdict) -> str:
    code = verdict.exit_code
    if code >= 0:
        return str(code)
    try:
        return f"{code} ({signal.Signals(-code).name})"
    except ValueError:  # a real-time signal has no name
        return str(code)
