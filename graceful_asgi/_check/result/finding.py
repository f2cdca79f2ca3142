"""The finding of a scenario, in one run and in several together. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .counts import (
    LOSS_KINDS,
    Answered,
    AnyOutcome,
    LoadResult,
    Lost,
    Rejected,
    Unsent,
    Wrong,
    total,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Result: TypeAlias = Literal["passed", "failed", "not run", "untested"]
"""`untested`: somebody asked for it, and it could not be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """The end of the server's process."""

    code: int
    """Negative: the signal that ended the process."""
    seconds: float
    """Seconds from the signal to the exit; of a late server, to its kill."""
    late: bool
    """True if it still ran when the deadline passed."""
    left_running: int = 0
    """Processes of its group that still ran when the command itself had exited."""
    still_open: bool = False
    """Its port still accepted connections after all that: somebody else has the listener."""

    @property
    def in_time(self) -> bool:
        """Return True if all that the command had started was gone by the deadline, by itself."""
        return not (self.late or self.left_running or self.still_open)


@dataclass(frozen=True, slots=True)
class Finding:
    """A scenario's verdict, in words that can stand in a table."""

    scenario: str
    result: Result
    detail: str = ""
    """The observation; for "not run", the reason. Empty if the counts say it all."""
    load: LoadResult = field(default_factory=LoadResult)
    """The scenario's own requests."""
    seconds: float | None = None
    """Seconds from the signal to what `detail` tells."""

    @property
    def failed(self) -> bool:
        """Return True if the server did something wrong."""
        return self.result == "failed"

    @property
    def text(self) -> str:
        """Return the detail, with its time."""
        text = self.detail or load_text(self.load)
        return text if self.seconds is None else f"{text} after {self.seconds:.1f} s"


def outcome_text(outcome: AnyOutcome | None) -> str:
    """Return an outcome in words."""
    if outcome is None:
        return "not sent"
    if isinstance(outcome, Answered):
        return f"{outcome.status} complete"
    if isinstance(outcome, Rejected):
        return f"{outcome.status} with Retry-After"
    if isinstance(outcome, Wrong):
        return f"wrong: {outcome.kind}" + (f" ({outcome.seen})" if outcome.seen else "")
    if isinstance(outcome, Lost):
        return f"lost: {outcome.kind}"
    if isinstance(outcome, Unsent):
        return f"not sent: {outcome.reason}"
    return "not answered, and safe to send again"


def load_text(load: LoadResult) -> str:
    """Return what became of many requests, in words: what went wrong, or that nothing did."""
    counts = load.total
    kinds = [f"{counts.lost[kind]:,} {kind}" for kind in LOSS_KINDS if kind in counts.lost]
    kinds += [f"{count:,} wrong ({kind})" for kind, count in sorted(counts.wrong.items())]
    if counts.unsent:
        kinds.append(f"{counts.unsent:,} dead before the write")
    if kinds:
        return ", ".join(kinds)
    if not counts.sent:
        return f"none sent, {load.refused:,} refused"
    if counts.retryable:
        return f"{counts.sent - counts.retryable:,} answered, {counts.retryable:,} retryable"
    return f"all {counts.sent:,} answered"


def is_faultless(load: LoadResult) -> bool:
    """Return True if every request was answered as it should be, or may be sent again."""
    counts = load.total
    return not (counts.lost_total or counts.wrong_total or counts.unsent)


_WORST_FIRST: Final[tuple[Result, ...]] = ("failed", "passed", "untested", "not run")


def merge(findings: Sequence[Finding]) -> Finding:
    """Return the findings of one scenario in several runs as one: any failure is one of all."""
    results = {finding.result for finding in findings}
    result = next(each for each in _WORST_FIRST if each in results)
    details = Counter(finding.detail for finding in findings if finding.detail)
    detail = next(iter(details), "")
    if len(details) > 1:
        detail = ", ".join(f"{count} x {text}" for text, count in details.items())
    return Finding(
        findings[0].scenario,
        result,
        detail,
        total(finding.load for finding in findings),
        max((f.seconds for f in findings if f.seconds is not None), default=None),
    )
