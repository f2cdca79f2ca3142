"""The outcome of each request, and the counts of a run. No sockets, no clock, no verdict."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable

LossKind: TypeAlias = Literal[
    "reset on reuse",  # reset before any byte of the answer, on a connection used before
    "reset on fresh",  # the same on the connection's first request
    "empty reply",  # end of stream before any byte of the answer
    "cut body",  # the answer began and did not reach its end
    "bad reply",  # what came was not HTTP
    "timeout",  # nothing ended the wait but the client's patience, or the end of the run
]
LOSS_KINDS: Final[tuple[LossKind, ...]] = get_args(LossKind)

WRONG_KINDS: Final = (
    "empty body",
    "shorter body",
    "another body",
    "damaged body",
    "another type",
    "half an event",
    "reply cut",
    "rejected",
)
"""The faults that a complete answer may have; besides these, ``status NNN``."""

Side: TypeAlias = Literal["before", "during", "after"]
"""A side of the signal. `during`: written before it and not answered when it was sent."""
SIDES: Final[tuple[Side, ...]] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Complete:
    """A complete answer. `reusable`: both sides may send another request on this connection."""

    status: int
    reusable: bool


@dataclass(frozen=True, slots=True)
class Answered(Complete):
    """A complete answer without a known fault."""


@dataclass(frozen=True, slots=True)
class Rejected(Complete):
    """A 5xx with a Retry-After, after the signal: the server refuses to serve."""


@dataclass(frozen=True, slots=True)
class Wrong(Complete):
    """A complete answer that is not the one that was learned before the load."""

    kind: str
    """One of `WRONG_KINDS`, or ``status NNN``."""
    seen: str = ""
    """The answer that came instead, in words."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Written on an established connection, and no complete answer came.

    A long request counts from its first bytes: the kernel may take the rest later.
    """

    kind: LossKind
    reused: bool


@dataclass(frozen=True, slots=True)
class Unsent:
    """The connection was found dead by the write itself, so no request left the client."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retryable:
    """An outcome without an answer: the server has said that it has not looked at the request.

    A request that was pipelined behind an answer with `Connection: close` (RFC 9112, 9.3.2 and
    9.6), or an HTTP/2 stream above the last one of a GOAWAY, or refused (RFC 9113, 8.7). The client
    may send it again, whatever its method.
    """


Outcome: TypeAlias = Complete | Lost | Unsent
AnyOutcome: TypeAlias = Outcome | Retryable


@dataclass(slots=True, kw_only=True)
class Counts:
    """The requests written on one side of the signal, counted while a run goes on.

    ``sent == served + rejected + sum(wrong) + sum(lost) + retryable``: every request written has
    one outcome.
    """

    served: int = 0
    """Complete and right answers."""
    rejected: int = 0
    """Complete answers after the signal with a 5xx status and a Retry-After."""
    wrong: dict[str, int] = field(default_factory=dict)
    """Complete answers that were not right, by kind; a kind that did not occur is absent."""
    lost: dict[LossKind, int] = field(default_factory=dict)
    """Requests without a complete answer, by kind; a kind that did not occur is absent."""
    lost_on_reuse: int = 0
    """The part of the lost ones whose connection had carried a request before."""
    retryable: int = 0
    """Requests that were not answered, and are safe to send again."""
    unsent: int = 0
    """Requests whose connection was dead at the write: not sent, so neither lost nor in `sent`."""
    slowest: float = field(default=0.0, compare=False)
    """Seconds that the slowest complete answer of the load took, with the wait for a connection."""

    @property
    def sent(self) -> int:
        """Return how many requests were written, whatever became of them."""
        return self.served + self.rejected + self.wrong_total + self.lost_total + self.retryable

    @property
    def lost_total(self) -> int:
        """Return how many requests were lost, of any kind."""
        return sum(self.lost.values())

    @property
    def wrong_total(self) -> int:
        """Return how many complete answers were wrong, of any kind."""
        return sum(self.wrong.values())

    def record(self, outcome: AnyOutcome, seconds: float) -> None:
        """Count one outcome, which came after so many seconds."""
        if isinstance(outcome, Complete):
            if seconds > self.slowest:
                self.slowest = seconds
            if isinstance(outcome, Answered):
                self.served += 1
            elif isinstance(outcome, Wrong):
                self.wrong[outcome.kind] = self.wrong.get(outcome.kind, 0) + 1
            else:
                self.rejected += 1
        elif isinstance(outcome, Lost):
            self.lost[outcome.kind] = self.lost.get(outcome.kind, 0) + 1
            self.lost_on_reuse += outcome.reused
        elif isinstance(outcome, Unsent):
            self.unsent += 1
        else:
            self.retryable += 1

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            served=self.served + other.served,
            rejected=self.rejected + other.rejected,
            wrong=collections.Counter(self.wrong) + collections.Counter(other.wrong),
            lost=collections.Counter(self.lost) + collections.Counter(other.lost),
            lost_on_reuse=self.lost_on_reuse + other.lost_on_reuse,
            retryable=self.retryable + other.retryable,
            unsent=self.unsent + other.unsent,
            slowest=max(self.slowest, other.slowest),
        )


@dataclass(slots=True, kw_only=True)
class LoadResult:
    """All that the clients of one run see, or those of one scenario in it."""

    before: Counts = field(default_factory=Counts)
    during: Counts = field(default_factory=Counts)
    after: Counts = field(default_factory=Counts)
    refused: int = 0
    """Requests never sent because no connection could be made. Only ever after the signal."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first wrong answer of each kind, in words."""

    @property
    def total(self) -> Counts:
        """Return the three sides together."""
        return self.before + self.at_risk

    @property
    def at_risk(self) -> Counts:
        """Return what the stop could do harm to: in flight at the signal, or written after it."""
        return self.during + self.after

    def record(self, side: Side, outcome: AnyOutcome, seconds: float = 0.0) -> None:
        """Count one outcome on its side of the signal."""
        counts: Counts = getattr(self, side)
        counts.record(outcome, seconds)
        if isinstance(outcome, Wrong):
            self.examples.setdefault(outcome.kind, outcome.seen)

    def __add__(self, other: LoadResult) -> LoadResult:
        return LoadResult(
            before=self.before + other.before,
            during=self.during + other.during,
            after=self.after + other.after,
            refused=self.refused + other.refused,
            examples={**other.examples, **self.examples},
        )


def total(results: Iterable[LoadResult]) -> LoadResult:
    """Return all of them together."""
    return sum(results, LoadResult())
