"""From the raw facts of runs to a verdict. Pure: no I/O, no clock, nothing to configure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .counts import LOSS_KINDS, SIDES, Counts, LoadResult, total
from .finding import Exit, Finding, merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .timeline import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The raw facts of one run of a server: the clients' side and the process's."""

    load: LoadResult
    end: Exit
    findings: tuple[Finding, ...] = ()
    samples: tuple[Sample, ...] = ()
    """The run in slices of time."""
    first_refusal: float | None = None
    """Seconds from the signal to the first client that was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one or more trials of one server amount to."""

    trials: int
    load: LoadResult
    """The requests of all trials, on the three sides of the signal."""
    findings: tuple[Finding, ...]
    """One for each scenario, those with a run of their own included."""
    ends: tuple[Exit, ...]
    """How the server ended, in each trial."""

    # -- requests -------------------------------------------------------------------------------

    @property
    def total(self) -> Counts:
        """All requests, on all sides of the signal."""
        return self.load.total

    @property
    def sent(self) -> int:
        """Requests written in full: served, rejected, answered with an error, or lost."""
        return self.total.sent

    @property
    def lost_total(self) -> int:
        """Requests written in full on an established connection and never answered in full."""
        return self.total.lost_total

    @property
    def lost_on_reuse(self) -> int:
        """Of the lost: on a connection that had carried a request before."""
        return self.total.lost_on_reuse

    @property
    def lost_on_fresh(self) -> int:
        """Of the lost: on a connection's first request."""
        return self.lost_total - self.lost_on_reuse

    @property
    def refused(self) -> int:
        """Never sent, because no connection could be made."""
        return self.load.refused

    @property
    def served_before(self) -> int:
        """Answered, written and answered before the signal."""
        return self.load.before.served

    @property
    def served_after(self) -> int:
        """Answered, and written after the signal."""
        return self.load.after.served

    # -- the process ----------------------------------------------------------------------------

    @property
    def seconds_to_exit(self) -> float:
        """From the signal to the exit; the longest of the trials."""
        return max(end.seconds for end in self.ends)

    @property
    def exit_code(self) -> int:
        """The first that was not 0, else 0. Negative: the signal that ended the process."""
        return next((end.code for end in self.ends if end.code), 0)

    @property
    def late(self) -> int:
        """In how many trials it still ran when the deadline passed."""
        return sum(end.late for end in self.ends)

    @property
    def left_running(self) -> int:
        """How many processes went on when the command itself had exited."""
        return sum(end.left_running for end in self.ends)

    # -- the verdict ----------------------------------------------------------------------------

    @property
    def clean(self) -> bool:
        """Nothing lost, no stray 5xx, no scenario failed, and gone in time by itself.

        The exit code is no part of it: most servers die of the signal they were sent.
        """
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """What makes the verdict not clean, in words; empty when it is."""
        total = self.total
        faults = [f"{some(total.lost_total, 'request')} lost"] if total.lost_total else []
        if total.unsent:
            dead = some(total.unsent, "connection")
            faults.append(f"{dead} dead before a request was written")
        faults += [f"{n:,} answered with {status}" for status, n in sorted(total.errors.items())]
        if self.load.before.failed:
            faults.append("some of those before the signal: the app fails without being stopped")
        faults += [f"{f.scenario}: {f.text}" for f in self.findings if f.failed and _adds(f)]
        if self.late:
            runs = some(self.trials, "run")
            faults.append(f"not gone by the deadline in {self.late} of {runs}")
        if self.left_running:
            left = some(self.left_running, "process", "processes")
            faults.append(f"{left} left running by the command")
        return faults

    def finding(self, scenario: str) -> Finding | None:
        """What a scenario came to, or None when it is not part of the plan."""
        return next((found for found in self.findings if found.scenario == scenario), None)

    @property
    def slow(self) -> str:
        """What became of the slow request: "200 complete", "lost: cut body"."""
        return self._detail("slow request")

    @property
    def stream(self) -> str:
        """The same of the streaming download."""
        return self._detail("streaming download")

    def _detail(self, scenario: str) -> str:
        finding = self.finding(scenario)
        return finding.text if finding else "not run"

    def as_dict(self) -> dict[str, Any]:
        """Everything, the derived figures included, as JSON's own types. Schema: see the docs."""
        return {
            "passed": self.clean,
            "faults": self.faults,
            "runs": self.trials,
            **load_as_dict(self.load),
            "scenarios": [
                {
                    "name": found.scenario,
                    "result": found.result,
                    "detail": found.text,
                    **load_as_dict(found.load),
                }
                for found in self.findings
            ],
            "exits": [
                {
                    "code": end.code,
                    "seconds": round(end.seconds, 3),
                    "late": end.late,
                    "left_running": end.left_running,
                }
                for end in self.ends
            ],
        }


# Whose failure is nothing but requests that are in the totals already.
_COUNTED: Final = frozenset({"keep-alive", "fresh connections", "pipelining"})


def _adds(finding: Finding) -> bool:
    return finding.scenario not in _COUNTED


def some(count: int, one: str, many: str = "") -> str:
    """A count and its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def load_as_dict(load: LoadResult) -> dict[str, Any]:
    """Counts as JSON: each side of the signal, the total, and what was refused."""
    sides = {side: _counts_as_dict(getattr(load, side)) for side in SIDES}
    return {"requests": {**sides, "total": _counts_as_dict(load.total)}, "refused": load.refused}


def _counts_as_dict(counts: Counts) -> dict[str, Any]:
    return {
        "sent": counts.sent,
        "served": counts.served,
        "rejected": counts.rejected,
        "errors": {str(status): count for status, count in sorted(counts.errors.items())},
        "lost": counts.lost_total,
        "lost_by_kind": {kind: counts.lost.get(kind, 0) for kind in LOSS_KINDS},
        "lost_on_reuse": counts.lost_on_reuse,
        "retryable": counts.retryable,
        "unsent": counts.unsent,
    }


def judge(trials: Sequence[Trial], *, others: Sequence[Finding] = ()) -> Verdict:
    """The verdict on all trials of one server together. Raises `ValueError` for none.

    `others` are findings of server runs of their own; their requests are not in the totals.
    """
    if not trials:
        raise ValueError("judge() needs at least one trial")
    by_scenario: dict[str, list[Finding]] = {}
    for finding in (*(f for trial in trials for f in trial.findings), *others):
        by_scenario.setdefault(finding.scenario, []).append(finding)
    return Verdict(
        trials=len(trials),
        load=total(trial.load for trial in trials),
        findings=tuple(merge(findings) for findings in by_scenario.values()),
        ends=tuple(trial.end for trial in trials),
    )
