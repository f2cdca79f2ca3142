"""Verdicts from the raw facts of runs. Pure: no I/O, no clock, nothing to configure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .counts import LOSS_KINDS, SIDES, Counts, LoadResult, total
from .finding import Exit, Finding, merge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..client.expectation import Expectation
    from ..client.plan import Endpoint
    from ..server.command import Command
    from .timeline import Sample

_RARE: Final = 0.05
"""A loss that has been missed with this probability may be there all the same."""
_BUSY: Final = 0.85
"""The share of a core from which on the clients may have held up the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientUse:
    """The share of the machine that the clients of one run took under load."""

    core: float = 0.0
    """The share of one core, 0 to 1: the clients run in one thread."""
    machine: float = 0.0
    """The share of all cores of the machine."""


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
    phases: Mapping[str, float] = field(default_factory=dict)
    """The phases of the drain, where the server's log names them: seconds from the signal."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """The right answers to each request ("GET /"), in words."""
    notes: tuple[str, ...] = ()
    """Facts without which a reader cannot judge the worth of the verdict."""
    client: ClientUse = field(default_factory=ClientUse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The sum of one or more trials of one server."""

    trials: int
    load: LoadResult
    """The requests of all trials, on the three sides of the signal."""
    findings: tuple[Finding, ...]
    """One for each scenario, those with a run of their own included."""
    ends: tuple[Exit, ...]
    """The end of the server in each trial: its exit `code`, its `seconds` from the signal, and if
    it was `late`."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """The right answers to each request ("GET /"), in words."""
    notes: tuple[str, ...] = ()
    """Facts without which a reader cannot judge the worth of the verdict."""
    client: ClientUse = field(default_factory=ClientUse)
    """The most that the clients took in any trial."""

    # -- requests -------------------------------------------------------------------------------

    @property
    def total(self) -> Counts:
        """Return all requests, on all sides of the signal."""
        return self.load.total

    @property
    def lost_total(self) -> int:
        """Return how many were written on a connection, and never answered in full."""
        return self.total.lost_total

    # -- the process ----------------------------------------------------------------------------

    @property
    def seconds_to_exit(self) -> float:
        """Return the seconds from the signal to the exit; the longest of the trials."""
        return max(end.seconds for end in self.ends)

    @property
    def exit_code(self) -> int:
        """Return the first that was not 0, else 0. Negative: the signal that ended the process."""
        return next((end.code for end in self.ends if end.code), 0)

    @property
    def late(self) -> int:
        """Return in how many trials it still ran when the deadline passed."""
        return sum(end.late for end in self.ends)

    @property
    def left_running(self) -> int:
        """Return how many processes went on when the command itself had exited."""
        return sum(end.left_running for end in self.ends)

    # -- the verdict ----------------------------------------------------------------------------

    @property
    def clean(self) -> bool:
        """Return True if nothing is against the server, and all that was asked for was tested.

        The exit code is no part of it: most servers die of the signal they were sent.
        """
        return not (self.faults or self.untested)

    @property
    def faults(self) -> list[str]:
        """Return what is against the server, in words."""
        failed = [f for f in self.findings if f.failed and f.scenario not in _COUNTED]
        scenarios = [f"{f.scenario}: {f.text}" for f in failed]
        return [*self.request_faults, *scenarios, *self.exit_faults]

    @property
    def request_faults(self) -> list[str]:
        """Return what is against the server in the totals of all requests."""
        total = self.total
        faults = [self._lost] if total.lost_total else []
        faults += [self._wrong(kind, n) for kind, n in sorted(total.wrong.items())]
        if total.unsent:
            dead = some(total.unsent, "connection")
            faults.append(f"{dead} dead before a request was written")
        if self.load.before.wrong:
            faults.append("wrong answers before the signal: the app fails without being stopped")
        return faults

    @property
    def exit_faults(self) -> list[str]:
        """Return what is against the way in which it ended."""
        faults = []
        if self.late:
            runs = some(self.trials, "run")
            faults.append(f"not gone by the deadline in {self.late} of {runs}")
        if self.left_running:
            left = some(self.left_running, "process", "processes")
            faults.append(f"{left} left running by the command")
        if any(end.still_open for end in self.ends):
            faults.append("its port still accepts connections after the exit")
        return faults

    @property
    def untested(self) -> list[str]:
        """Return what was asked for and could not be shown, with the reasons."""
        return [f"{f.scenario}: {f.text}" for f in self.findings if f.result == "untested"]

    @property
    def _lost(self) -> str:
        lost = self.total.lost
        kinds = ", ".join(f"{lost[kind]:,} {kind}" for kind in LOSS_KINDS if kind in lost)
        return f"{some(self.lost_total, 'request')} lost ({kinds})"

    def _wrong(self, kind: str, count: int) -> str:
        text = f"{some(count, 'wrong answer')} ({kind})"
        example = self.load.examples.get(kind)
        return f"{text}, as {example}" if example else text

    def finding(self, scenario: str) -> Finding | None:
        """Return what a scenario came to, or None when it is not part of the plan.

        Its `result` is `passed`, `failed`, `not run` or `untested`; its `detail` says in words what
        was seen, or why it was not run. *scenario* is a name such as `WebSocket`.
        """
        return next((found for found in self.findings if found.scenario == scenario), None)

    # -- how much it is worth -------------------------------------------------------------------

    @property
    def at_risk(self) -> int:
        """Return how many requests the stop could have lost.

        Those that were answered before the signal are not among them, however many they are.
        """
        return self.load.at_risk.sent

    @property
    def missed_requests(self) -> float | None:
        """Return the share of requests at risk that may be lost although none was.

        With 95 % confidence it is not higher: the rule of three, 3/n for none of n. None where a
        request was lost, or none was at risk.
        """
        if self.lost_total or not self.at_risk:
            return None
        return _missed(self.at_risk)

    @property
    def missed_stops(self) -> float:
        """Return the share of stops that may lose a request although none of these trials did.

        With 95 % confidence it is not higher. Losses come in clusters, one bad stop at a time, so
        this is the stricter of the two.
        """
        return _missed(self.trials)

    @property
    def is_client_busy(self) -> bool:
        """Return True where the client may have been what held up the load."""
        return self.client.core > _BUSY

    def as_dict(self) -> dict[str, Any]:
        """Return everything, the derived figures included, as JSON's own types.

        The reference page of the check has the schema.
        """
        return {
            "passed": self.clean,
            "faults": self.faults,
            "untested": self.untested,
            "notes": list(self.notes),
            "runs": self.trials,
            "expected": dict(self.expected),
            **load_as_dict(self.load),
            "at_risk": self.at_risk,
            "missed_requests": self.missed_requests,
            "missed_stops": round(self.missed_stops, 4),
            "client": _rounded(self.client),
            "scenarios": [
                {
                    "name": found.scenario,
                    "result": found.result,
                    "detail": found.text,
                    **load_as_dict(found.load),
                }
                for found in self.findings
            ],
            "exits": [_rounded(end) for end in self.ends],
        }


# Scenarios that fail by requests alone, which are in the totals already.
_COUNTED: Final = frozenset(
    {"keep-alive", "fresh connections", "connection storm", "POST", "HTTP/2", "pipelining"}
)


def _missed(tries: int) -> float:
    """Return the highest rate that shows nothing in so many tries with a probability of 5 %.

    For many tries this is 3 divided by their number, the rule of three; it is exact for few.
    """
    return float(1.0 - _RARE ** (1 / tries))


def some(count: int, one: str, many: str = "") -> str:
    """Return a count and its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def load_as_dict(load: LoadResult) -> dict[str, Any]:
    """Return counts as JSON: each side of the signal, the total, and what was refused."""
    sides = {side: _counts_as_dict(getattr(load, side)) for side in SIDES}
    return {
        "requests": {**sides, "total": _counts_as_dict(load.total)},
        "refused": load.refused,
        "examples": dict(load.examples),
    }


def _rounded(facts: ClientUse | Exit) -> dict[str, Any]:
    fields = asdict(facts).items()
    return {name: round(each, 3) if isinstance(each, float) else each for name, each in fields}


def _counts_as_dict(counts: Counts) -> dict[str, Any]:
    return {
        "sent": counts.sent,
        "served": counts.served,
        "rejected": counts.rejected,
        "wrong": counts.wrong_total,
        "wrong_by_kind": dict(sorted(counts.wrong.items())),
        "lost": counts.lost_total,
        "lost_by_kind": {kind: counts.lost.get(kind, 0) for kind in LOSS_KINDS},
        "lost_on_reuse": counts.lost_on_reuse,
        "retryable": counts.retryable,
        "unsent": counts.unsent,
        "slowest": round(counts.slowest, 3),
    }


def judge(trials: Sequence[Trial], *, others: Sequence[Finding] = ()) -> Verdict:
    """Return the verdict on all trials of one server together. Raises `ValueError` for none.

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
        expected={what: text for trial in trials for what, text in trial.expected.items()},
        notes=tuple(dict.fromkeys(note for trial in trials for note in trial.notes)),
        client=max((trial.client for trial in trials), key=lambda client: client.core),
    )


@dataclass(slots=True)
class Target:
    """One server of a check, and what has been seen of it."""

    command: Command
    env: Mapping[str, str] | None = None
    """The server's environment, without `PORT`; None: this process's own."""
    trials: list[Trial] = field(default_factory=list)
    others: list[Finding] = field(default_factory=list)
    expectations: dict[Endpoint, Expectation] = field(default_factory=dict)
    """The right answers, as far as they have been learned in any run."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on all rounds so far. `ValueError` before the first."""
        return judge(self.trials, others=self.others)


SCHEMA: Final = 2
"""Stays the same when fields are added; goes up when one is renamed, removed or means another."""


def report(targets: Sequence[Target], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole check: how it was done, and the verdict on each server."""
    return {
        "schema": SCHEMA,
        "passed": targets[0].verdict.clean,
        "settings": dict(settings),
        "servers": [
            {
                "name": target.command.name,
                "command": list(target.command.arguments),
                **target.verdict.as_dict(),
            }
            for target in targets
        ],
    }
