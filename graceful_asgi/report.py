"""Results and states of a drain: `DrainReport`, `DrainStatistics`, `StuckWork`. Only data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .phase import Phase

Kind = Literal["http", "websocket", "task", "lifespan"]
"""A kind of work. `task`: the app's own, tracked by `Drainer.track`."""

Outcome = Literal["completed", "closed", "cancelled", "aborted", "rejected"]
"""The outcome of a piece of work during a drain."""

DrainOutcome = Literal["clean", "forced", "resumed"]
"""The outcome of a drain that was begun. `clean`: the lame duck has passed and nothing is in
flight. `forced`: work is still in flight after the grace period as well, or was cancelled.
`resumed`: the drain was called off."""

Moment = Literal["grace period", "hard deadline", "interrupt"]
"""The end that a stuck report comes before. `interrupt`: one more SIGINT during a drain ends the
process before its hard deadline."""


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
    """The state of its answer: `response not started`, `response started`, ..."""
    where: str
    """The line of the app that it was waiting at (`file:line in function`); may be empty."""
    route: str = ""
    """The route's path as the app declares it (`/reports/{id}`); empty where none is known."""
    client: str = ""
    """The client's address; empty where the server gives none."""
    sent: int | None = None
    """Bytes of the response's body handed to the server; None where nobody counts them."""
    chain: tuple[str, ...] = ()
    """Its calls, from the outermost to the innermost one, in which it waits. Lines of the app, and
    between them the number of calls of each library."""
    thread: str = ""
    """The thread that works for it, if that is known; `where` and `chain` lead into it."""

    def __str__(self) -> str:
        # A path can hold anything, a line break too: this goes into a log.
        kind = "" if self.kind == "lifespan" else self.kind  # its path is `lifespan.shutdown`
        name = " ".join(part for part in (kind, self.method, self.path) if part)
        where = f", at {self.where}" if self.where else ""
        return printable(f"{name} for {self.age:.1f} s, {self.phase}{where}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """The outcomes of the work that was in flight when the drain began, or that came later.

    `completed + closed + cancelled + aborted` is all of it, each counted once. A missed deadline is
    data here, not an error.
    """

    reason: str
    """The trigger that began the drain: `SIGTERM`, `should_exit`, ..."""
    completed: int
    """Ended by itself."""
    closed: int
    """Event streams that the drain closed between two events, and WebSockets that it closed with
    1012 when they owed no reply. Their clients connect again, and have lost nothing."""
    cancelled: int
    """Still in flight at the end of the grace period, with nothing cut: an HTTP client got its 503,
    a WebSocket its 1012, an event stream its end between two events."""
    aborted: int
    """Left with a part of an answer, or still in flight at the end of the cancel period. A
    `lifespan.shutdown` that failed or was given up counts as one, too."""
    rejected: int
    """New requests that got a 503 because of the drain. They were not in flight."""
    elapsed: float
    """Seconds from the drain's beginning to now, or to its end."""
    stuck: tuple[StuckWork, ...] = ()
    """The work that was still in flight when its deadline passed. For the oldest 20 pieces the
    report names the line where each waits."""
    failed: bool = False
    """True if the stop came from an exception that nobody handled."""
    stopped_by: str = ""
    """The stop that ended the drain: `SIGTERM`, ... It differs from `reason` where the drain had
    been begun without a stop. Empty before a stop."""
    server_errors: int = 0
    """The HTTP requests among `completed` that the app answered with a status of 500 or more, or
    did not answer in full because it raised. They do not make a drain forced: the app may answer
    so while serving as well."""

    @property
    def clean(self) -> bool:
        """True if everything in flight finished, or was closed where nothing is lost."""
        return not (self.cancelled or self.aborted)

    @property
    def exit_code(self) -> int:
        """The exit code of the process: 0 after a clean drain; 1 if work was cut short or an
        unhandled exception stopped the server."""
        return 0 if self.clean and not self.failed else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStatistics:
    """The state of a drain at one moment.

    `completed`, `closed`, `cancelled`, `aborted` and `rejected` count what `DrainReport` describes
    under these names, from the beginning of the drain to this moment. They are 0 before the first
    drain.
    """

    phase: Phase
    """The phase that the server is in."""
    reason: str
    """The trigger that began the drain; empty while serving."""
    in_flight: int
    """The number of pieces of work in flight."""
    oldest: StuckWork | None
    """The work that has been in flight longest (it need not be stuck); None if there is none."""
    completed: int
    closed: int
    cancelled: int
    aborted: int
    rejected: int
    elapsed: float
    """Seconds since the drain began; 0 while serving."""
    time_left: float
    """Seconds until the work in flight is cancelled; infinite before a stop."""
    kinds: Mapping[Kind, int] = field(default_factory=dict)
    """The number of pieces of work in flight, by kind; a kind without any is absent."""
    tracked: Mapping[str, int] = field(default_factory=dict)
    """The app's own work in flight (`Drainer.track`), by the names it was given."""
    drains: int = 0
    """The number of drains that have begun, those called off included."""
    totals: Mapping[Outcome, int] = field(default_factory=dict)
    """The number of pieces of work in all drains, by outcome; these never decrease."""
    server_errors: int = 0
    """The HTTP requests among `completed` that the app answered with a status of 500 or more, or
    did not answer in full because it raised."""
    total_server_errors: int = 0
    """The same in all drains; it never decreases."""
