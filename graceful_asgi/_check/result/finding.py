"""What a scenario came to: in one run, and in several together. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from .counts import LOSS_KINDS, Answered, AnyOutcome, LoadResult, Lost, Unsent, total

if TYPE_CHECKING:
    from collections.abc import Sequence

Result: TypeAlias = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How the server's process ended."""

    code: int
    """Negative: the signal that ended the process."""
    seconds: float
    """From the signal to the exit; when it was late, to the end that was made of it."""
    late: bool
    """It was still running when the deadline passed."""
    left_running: int = 0
    """Processes of its group that still ran when the command itself had exited."""

    @property
    def in_time(self) -> bool:
        """Whether everything that the command had started was gone by the deadline, by itself."""
        return not (self.late or self.left_running)


@dataclass(frozen=True, slots=True)
class Finding:
    """A scenario's verdict, in words that can stand in a table."""

    scenario: str
    result: Result
    detail: str = ""
    """What was seen; for "not run", why. Empty: what became of its requests says it all."""
    load: LoadResult = field(default_factory=LoadResult)
    """The scenario's own requests."""
    seconds: float | None = None
    """From the signal to what `detail` tells."""

    @property
    def failed(self) -> bool:
        """Whether the server did something wrong."""
        return self.result == "failed"

    @property
    def text(self) -> str:
        """The detail, with its time."""
        text = self.detail or describe_load(self.load)
        return text if self.seconds is None else f"{text} after {self.seconds:.1f} s"


def describe(outcome: AnyOutcome | None) -> str:
    """An outcome in words."""
    if outcome is None:
        return "not sent"
    if isinstance(outcome, Answered):
        return f"{outcome.status} complete"
    if isinstance(outcome, Lost):
        return f"lost: {outcome.kind}"
    if isinstance(outcome, Unsent):
        return f"not sent: {outcome.reason}"
    return "not answered, and safe to send again"


def describe_load(load: LoadResult) -> str:
    """What became of many requests, in words: what went wrong, or that nothing did."""
    counts = load.total
    kinds = [f"{counts.lost[kind]:,} {kind}" for kind in LOSS_KINDS if kind in counts.lost]
    kinds += [f"{count:,} x {status}" for status, count in sorted(counts.errors.items())]
    if counts.unsent:
        kinds.append(f"{counts.unsent:,} dead before the write")
    if kinds:
        return ", ".join(kinds)
    if counts.retryable:
        return f"{counts.sent - counts.retryable:,} answered, {counts.retryable:,} retryable"
    return f"all {counts.sent:,} answered"


def is_faultless(load: LoadResult) -> bool:
    """Whether every request was answered as it should be, or may be sent again."""
    counts = load.total
    return not (counts.lost_total or counts.failed or counts.unsent)


def merge(findings: Sequence[Finding]) -> Finding:
    """The findings of one scenario in several runs, as one: any failure is one of the whole."""
    result: Result = "not run"
    results = {finding.result for finding in findings}
    if results != {"not run"}:
        result = "failed" if "failed" in results else "passed"
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
