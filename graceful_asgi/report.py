"""What a drain came to, and where it stands: `DrainReport`, `DrainStatistics`. Only data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .phase import Phase


Kind = Literal["http", "websocket", "task", "lifespan"]

Outcome = Literal["completed", "cancelled", "aborted", "rejected"]


@dataclass(frozen=True, slots=True)
class StuckWork:
    """Work that was still in flight when its deadline passed."""

    kind: Kind
    """`http`, `websocket`, `task` (tracked work) or `lifespan`."""
    method: str
    """The request's method; empty for other kinds."""
    path: str
    """The request's path, or the name that tracked work was given."""
    age: float
    """Seconds since it began."""
    phase: str
    """How far it had come: `response not started`, `response started`, ..."""
    where: str
    """The line of the app that it was waiting at (`file:line in function`); may be empty."""
    route: str = ""
    """The route's path as the app declares it (`/reports/{id}`); empty where none is known."""
    client: str = ""
    """The client's address; empty where the server gives none."""
    sent: int | None = None
    """Bytes of the response's body handed to the server; None where nobody counts them."""
    chain: tuple[str, ...] = ()
    """Where it was waiting, from the outermost call to the innermost. Lines of the app, and between
    them how many calls of which library."""
    thread: str = ""
    """The thread that works for it, where that can be told; `where` and `chain` lead into it."""

    def __str__(self) -> str:
        # A path can hold anything, a line break too: this goes into a log.
        name = " ".join(part for part in (self.kind, self.method, printable(self.path)) if part)
        where = f", at {self.where}" if self.where else ""
        return f"{name} for {self.age:.1f} s, {self.phase}{where}"


def printable(text: str) -> str:
    """Return *text* with every character escaped that a terminal would act on. A path is what some
    client has chosen."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What became of the work that was in flight when the drain began, and came in during it.

    `completed + cancelled + aborted` is all of it, each counted once. A missed deadline is data
    here, not an error.
    """

    reason: str
    """What began the drain: `SIGTERM`, `should_exit`, ..."""
    completed: int
    """Ended by itself."""
    cancelled: int
    """Cancelled, with nothing cut: an HTTP client got its 503, a WebSocket its 1012."""
    aborted: int
    """Left with a part of an answer, or still in flight at the end of the cancel period."""
    rejected: int
    """New requests that got a 503 because of the drain. They were not in flight."""
    elapsed: float
    """Seconds from the drain's beginning to now, or to its end."""
    stuck: tuple[StuckWork, ...] = ()
    """What was still in flight when its deadline passed. Where it waits is known of the oldest 20
    pieces of work."""
    failed: bool = False
    """Whether the stop came from an exception that nobody handled."""

    @property
    def clean(self) -> bool:
        """Whether everything in flight finished."""
        return not (self.cancelled or self.aborted)

    @property
    def exit_code(self) -> int:
        """What the process exits with: 0 after a clean drain, 1 after one that was not, or one
        that an exception stopped the server by."""
        return 0 if self.clean and not self.failed else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStatistics:
    """A drainer at one moment."""

    phase: Phase
    reason: str
    in_flight: int
    oldest: StuckWork | None
    """The work that has been in flight longest (it need not be stuck)."""
    completed: int
    cancelled: int
    aborted: int
    rejected: int
    elapsed: float
    """Seconds since the drain began; 0 while serving."""
    time_left: float
    """Seconds until the work in flight is cancelled; infinite where no stop has come."""
    kinds: Mapping[Kind, int] = field(default_factory=dict)
    """How much of each kind is in flight; what is not there is absent."""
    tracked: Mapping[str, int] = field(default_factory=dict)
    """The app's own work in flight (`DrainRunner.track`), by the names it was given."""
    drains: int = 0
    """How many drains have begun, those called off included."""
    totals: Mapping[Outcome, int] = field(default_factory=dict)
    """What has become of the work in all of them; these never go back."""
