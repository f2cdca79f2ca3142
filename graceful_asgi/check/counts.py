"""What became of each request, and the counts of a whole load. No sockets, no clock, no verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

LossKind: TypeAlias = Literal[
    "reset on reuse",  # reset before any byte of the answer, on a connection used before
    "reset on fresh",  # the same on the connection's first request
    "empty reply",  # end of stream before any byte of the answer
    "cut body",  # the answer began and did not reach its end
    "bad reply",  # what came was not HTTP
    "timeout",  # nothing ended the wait but the client's patience, or the end of the load
]
LOSS_KINDS: Final[tuple[LossKind, ...]] = get_args(LossKind)


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


Outcome: TypeAlias = Answered | Lost | Unsent


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The requests written in one part of a load.

    ``sent == served + rejected + sum(errors) + sum(lost)``: every request written has one outcome.
    """

    sent: int = 0
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
    unsent: int = 0
    """Requests whose connection was dead at the write: not sent, so neither lost nor in `sent`."""

    @property
    def lost_total(self) -> int:
        """Requests lost, of any kind."""
        return sum(self.lost.values())

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            sent=self.sent + other.sent,
            served=self.served + other.served,
            rejected=self.rejected + other.rejected,
            errors=Counter(self.errors) + Counter(other.errors),
            lost=Counter(self.lost) + Counter(other.lost),
            lost_on_reuse=self.lost_on_reuse + other.lost_on_reuse,
            unsent=self.unsent + other.unsent,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """All that the clients saw. A request belongs to the side of the signal it was written on."""

    before: Counts
    after: Counts
    refused: int
    """Requests never sent because no connection could be made. Only ever after the signal."""
    slow: Outcome | None
    """The slow request; None: never written, or not in the plan."""
    stream: Outcome | None
    """The streaming response; None likewise."""


class Tally:
    """Counts one part of a load while it runs."""

    __slots__ = (
        "_deliberate",
        "_errors",
        "_lost",
        "lost_on_reuse",
        "rejected",
        "sent",
        "served",
        "unsent",
    )

    def __init__(self, *, deliberate: frozenset[int] = frozenset()) -> None:
        self._deliberate = deliberate
        self._errors: Counter[int] = Counter()
        self._lost: Counter[LossKind] = Counter()
        self.sent = self.served = self.rejected = self.lost_on_reuse = self.unsent = 0

    def record(self, outcome: Outcome) -> None:
        """Count one outcome. The request itself was counted in `sent` when it was written."""
        if isinstance(outcome, Unsent):
            self.unsent += 1
        elif isinstance(outcome, Lost):
            self._lost[outcome.kind] += 1
            self.lost_on_reuse += outcome.reused
        elif outcome.status < 500:
            self.served += 1
        elif outcome.status in self._deliberate:
            self.rejected += 1
        else:
            self._errors[outcome.status] += 1

    def counts(self) -> Counts:
        """The counts so far, frozen."""
        return Counts(
            sent=self.sent,
            served=self.served,
            rejected=self.rejected,
            errors=dict(self._errors),
            lost=dict(self._lost),
            lost_on_reuse=self.lost_on_reuse,
            unsent=self.unsent,
        )
