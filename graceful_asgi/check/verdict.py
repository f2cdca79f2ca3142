"""From the raw facts of trials to a verdict. Pure: no I/O, no clock, nothing to configure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graceful_asgi.check.counts import LOSS_KINDS, Answered, LossKind, Lost, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graceful_asgi.check.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one or more trials of one server amount to."""

    trials: int
    served_before: int
    """Answered, and written before the signal."""
    served_after: int
    """Answered, and written after it."""
    lost: Mapping[LossKind, int]
    """Every kind, zero included; whichever side of the signal the request was written on."""
    lost_on_reuse: int
    """Of the lost: on a connection that had carried a request before."""
    refused: int
    """Never sent, because no connection could be made."""
    unsent: int
    """Never sent, because the connection was dead at the write."""
    rejected: int
    """Answered with a 5xx status that the plan calls deliberate."""
    errors: Mapping[int, int]
    """Answered with any other 5xx, by status."""
    slow: str
    """What became of the slow request: "200 complete", "lost: cut body", "not sent"."""
    stream: str
    """The same of the streaming response."""
    seconds_to_exit: float
    """From the signal to the exit; the longest of the trials."""
    exit_code: int
    """The first that was not 0, else 0. Negative: the signal that ended the process."""
    killed: int
    """How many trials ended by our SIGKILL, the deadline having passed."""

    @property
    def lost_total(self) -> int:
        """Requests written in full on an established connection and never answered in full."""
        return sum(self.lost.values())

    @property
    def lost_on_fresh(self) -> int:
        """Of the lost: on a connection's first request."""
        return self.lost_total - self.lost_on_reuse

    @property
    def sent(self) -> int:
        """Requests written in full: served, rejected, answered with an error, or lost."""
        served = self.served_before + self.served_after
        return served + self.rejected + sum(self.errors.values()) + self.lost_total

    @property
    def clean(self) -> bool:
        """Nothing lost, no connection dead at the write, no stray 5xx, exit code 0 of its own."""
        faults = self.lost_total + self.unsent + sum(self.errors.values()) + self.killed
        return faults == 0 and self.exit_code == 0

    def as_dict(self) -> dict[str, Any]:
        """Everything, the derived figures included, as JSON's own types."""
        return {
            "trials": self.trials,
            "clean": self.clean,
            "sent": self.sent,
            "served": {"before": self.served_before, "after": self.served_after},
            "lost": {
                "total": self.lost_total,
                "on_reuse": self.lost_on_reuse,
                "on_fresh": self.lost_on_fresh,
                "by_kind": dict(self.lost),
            },
            "refused": self.refused,
            "unsent": self.unsent,
            "rejected": self.rejected,
            "errors": {str(status): count for status, count in sorted(self.errors.items())},
            "slow": self.slow,
            "stream": self.stream,
            "seconds_to_exit": round(self.seconds_to_exit, 3),
            "exit_code": self.exit_code,
            "killed": self.killed,
        }


def judge(trials: Sequence[Trial]) -> Verdict:
    """The verdict on all trials of one server together. Raises `ValueError` for none."""
    if not trials:
        raise ValueError("judge() needs at least one trial")
    before = [trial.load.before for trial in trials]
    after = [trial.load.after for trial in trials]
    everything = before + after
    lost: Counter[LossKind] = Counter()
    errors: Counter[int] = Counter()
    for counts in everything:
        lost.update(counts.lost)
        errors.update(counts.errors)
    return Verdict(
        trials=len(trials),
        served_before=sum(counts.served for counts in before),
        served_after=sum(counts.served for counts in after),
        lost={kind: lost[kind] for kind in LOSS_KINDS},
        lost_on_reuse=sum(counts.lost_on_reuse for counts in everything),
        refused=sum(trial.load.refused for trial in trials),
        unsent=sum(counts.unsent for counts in everything),
        rejected=sum(counts.rejected for counts in everything),
        errors=dict(errors),
        slow=_summary([trial.load.slow for trial in trials]),
        stream=_summary([trial.load.stream for trial in trials]),
        seconds_to_exit=max(trial.seconds_to_exit for trial in trials),
        exit_code=next((trial.exit_code for trial in trials if trial.exit_code), 0),
        killed=sum(trial.killed for trial in trials),
    )


def describe(outcome: Outcome | None) -> str:
    """An outcome in words."""
    if outcome is None:
        return "not sent"
    if isinstance(outcome, Answered):
        return f"{outcome.status} complete"
    if isinstance(outcome, Lost):
        return f"lost: {outcome.kind}"
    return f"not sent: {outcome.reason}"


def _summary(outcomes: Sequence[Outcome | None]) -> str:
    """One description, or each with how often it occurred."""
    times = Counter(describe(outcome) for outcome in outcomes)
    if len(times) == 1:
        return next(iter(times))
    return ", ".join(f"{count} x {text}" for text, count in times.items())
