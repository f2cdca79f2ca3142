"""What became of each request, and the counts of a run. No sockets, no clock, no verdict."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LossKind: TypeAlias = Literal[
    "reset on reuse",  # reset before any byte of the answer, on a connection used before
    "reset on fresh",  # the same on the connection's first request
    "empty reply",  # end of stream before any byte of the answer
    "cut body",  # the answer began and did not reach its end
    "bad reply",  # what came was not HTTP
    "timeout",  # nothing ended the wait but the client's patience, or the end of the run
]
LOSS_KINDS: Final[tuple[LossKind, ...]] = get_args(LossKind)

Side: TypeAlias = Literal["before", "during", "after"]
"""Of the signal. `during`: written before it and not answered when it was sent."""
SIDES: Final[tuple[Side, ...]] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Answered:
    """A complete answer. `reusable`: both sides may send another request on this connection."""

    status: int
    reusable: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Written in full on an established connection, and no complete answer came."""

    kind: LossKind
    reused: bool


@dataclass(frozen=True, slots=True)
class Unsent:
    """The connection was found dead by the write itself, so no request left the client."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retryable:
    """Pipelined behind an answer that said `Connection: close`, and not answered.

    The server has told that it will not look at it (RFC 9112, 9.6), so the client may send it again
    (9.3.2), whatever its method.
    """


Outcome: TypeAlias = Answered | Lost | Unsent
AnyOutcome: TypeAlias = Outcome | Retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The requests written on one side of the signal.

    ``sent == served + rejected + sum(errors) + sum(lost) + retryable``: every request written has
    one outcome.
    """

    served: int = 0
    """Complete answers, other than 5xx."""
    rejected: int = 0
    """Complete answers with a 5xx status that the plan calls deliberate."""
    errors: Mapping[int, int] = field(default_factory=dict)
    """Complete answers with any other 5xx, by status."""
    lost: Mapping[LossKind, int] = field(default_factory=dict)
    """By kind; a kind that did not occur is absent."""
    lost_on_reuse: int = 0
    """How many of the lost ones were on a connection that had carried a request before."""
    retryable: int = 0
    """Pipelined behind a `Connection: close`, not answered, and safe to send again."""
    unsent: int = 0
    """Requests whose connection was dead at the write: not sent, so neither lost nor in `sent`."""

    @property
    def sent(self) -> int:
        """Requests written in full, whatever became of them."""
        return self.served + self.rejected + self.failed + self.lost_total + self.retryable

    @property
    def lost_total(self) -> int:
        """Requests lost, of any kind."""
        return sum(self.lost.values())

    @property
    def failed(self) -> int:
        """Complete answers with a 5xx status that nobody meant."""
        return sum(self.errors.values())

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            served=self.served + other.served,
            rejected=self.rejected + other.rejected,
            errors=collections.Counter(self.errors) + collections.Counter(other.errors),
            lost=collections.Counter(self.lost) + collections.Counter(other.lost),
            lost_on_reuse=self.lost_on_reuse + other.lost_on_reuse,
            retryable=self.retryable + other.retryable,
            unsent=self.unsent + other.unsent,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """All that the clients of one run saw, or those of one scenario in it."""

    before: Counts = field(default_factory=Counts)
    during: Counts = field(default_factory=Counts)
    after: Counts = field(default_factory=Counts)
    refused: int = 0
    """Requests never sent because no connection could be made. Only ever after the signal."""

    @property
    def total(self) -> Counts:
        """The three sides together."""
        return self.before + self.during + self.after

    def __add__(self, other: LoadResult) -> LoadResult:
        return LoadResult(
            before=self.before + other.before,
            during=self.during + other.during,
            after=self.after + other.after,
            refused=self.refused + other.refused,
        )


def total(results: Iterable[LoadResult]) -> LoadResult:
    """All of them together."""
    return sum(results, LoadResult())


class SideCounter:
    """Counts one side while a run goes on."""

    __slots__ = (
        "_deliberate",
        "_errors",
        "_lost",
        "lost_on_reuse",
        "rejected",
        "retryable",
        "served",
        "unsent",
    )

    def __init__(self, *, deliberate: frozenset[int] = frozenset()) -> None:
        self._deliberate = deliberate
        self._errors: collections.Counter[int] = collections.Counter()
        self._lost: collections.Counter[LossKind] = collections.Counter()
        self.served = self.rejected = self.lost_on_reuse = self.retryable = self.unsent = 0

    def record(self, outcome: AnyOutcome) -> None:
        """Count one outcome."""
        if isinstance(outcome, Answered):
            if outcome.status < 500:
                self.served += 1
            elif outcome.status in self._deliberate:
                self.rejected += 1
            else:
                self._errors[outcome.status] += 1
        elif isinstance(outcome, Lost):
            self._lost[outcome.kind] += 1
            self.lost_on_reuse += outcome.reused
        elif isinstance(outcome, Unsent):
            self.unsent += 1
        else:
            self.retryable += 1

    def counts(self) -> Counts:
        """The counts so far, frozen."""
        return Counts(
            served=self.served,
            rejected=self.rejected,
            errors=dict(self._errors),
            lost=dict(self._lost),
            lost_on_reuse=self.lost_on_reuse,
            retryable=self.retryable,
            unsent=self.unsent,
        )


class Counter:
    """The tallies of one scenario, one for each side of the signal, and what was refused to it."""

    __slots__ = ("_sides", "refused")

    def __init__(self, *, deliberate: frozenset[int] = frozenset()) -> None:
        self._sides: dict[Side, SideCounter] = {
            side: SideCounter(deliberate=deliberate) for side in SIDES
        }
        self.refused = 0

    def record(self, side: Side, outcome: AnyOutcome) -> None:
        """Count one outcome on its side."""
        self._sides[side].record(outcome)

    def result(self) -> LoadResult:
        """The counts so far, frozen."""
        before, during, after = (self._sides[side].counts() for side in SIDES)
        return LoadResult(before=before, during=during, after=after, refused=self.refused)
