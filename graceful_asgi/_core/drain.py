"""A drain as a value, and the one function that leads from event to event. Pure.

Nothing here reads a clock, takes a lock, waits, logs or does I/O: the caller gives the time. `step`
holds every guard and every deadline. It returns the very same object where an event changes
nothing. That alone makes draining idempotent: a second SIGTERM changes nothing.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from ..phase import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..policy import DrainPolicy


class Begin(NamedTuple):
    """Somebody asked for a drain that does not end the process."""

    reason: str
    lame_duck: bool = True
    resume_after: float | None = None
    """Seconds after which this caller allows the drain to be undone. None: never."""


class Stop(NamedTuple):
    """Somebody asked the process to end. Begins a drain where none is under way."""

    reason: str
    lame_duck: bool = True
    failed: bool = False


class Adopt(NamedTuple):
    """The operator's policy takes the place of the app's, before any drain."""

    policy: DrainPolicy


class Step(enum.Enum):
    """Everything else that can happen to a drain."""

    RESUME = "resume"
    """The drain is called off while the listener is still open."""
    UNDO = "undo"
    """No stop came within the time that everybody who asked for the drain allows."""
    END_LAME_DUCK = "end lame duck"
    """Nobody needs the rest of the lame duck."""
    CLOSE = "close"
    """The lame duck has passed: the listener closes."""
    CANCEL = "cancel"
    """The grace period has passed, or somebody will not wait for its end."""
    CLEAN_UP = "clean up"
    """Nothing is in flight any more, or nothing that would ever end."""
    FINISH = "finish"
    """`lifespan.shutdown` is done, or was given up."""
    RESTART = "restart"
    """Another server starts with this drainer."""


Event = Begin | Stop | Adopt | Step

_WAITING: Final = (Phase.LAME_DUCK, Phase.DRAINING)


class Drain(NamedTuple):
    """Everything that has happened to a drain so far.

    Instants are absolute, by the drainer's clock. An infinite instant has not been set.
    """

    policy: DrainPolicy
    phase: Phase = Phase.SERVING
    number: int = 0
    """The number of drains that have begun, this one included."""
    reason: str = ""
    """The trigger that began the drain."""
    stopped_by: str | None = None
    """The trigger that asked for the end of the process; None before a stop."""
    failed: bool = False
    """True after a stop that came from an unhandled exception."""
    hurried: bool = False
    """True after the lame duck was cut short: somebody waits for the end (Ctrl+C, `--reload`)."""
    cut_short: bool = False
    """True after work was cancelled before the end of the grace period (a second Ctrl+C)."""
    began: float = math.inf
    lame_duck_deadline: float = math.inf
    deadline: float = math.inf
    """The end of the current phase, from the listener close on."""
    ended: float | None = None
    undo_at: float = math.inf
    """The time of the undo if no stop has come: the latest time that any caller allows."""

    @property
    def stopping(self) -> bool:
        """True once a stop has come: this drain ends with the process."""
        return self.stopped_by is not None

    @property
    def held(self) -> bool:
        """True in a lame duck that no stop has come to: it may still be called off."""
        return self.phase is Phase.LAME_DUCK and not self.stopping

    @property
    def waiting(self) -> bool:
        """True while a drain is under way and work in flight may still finish."""
        return self.phase in _WAITING

    def lame_duck_end(self, last_arrival: float = -math.inf) -> float:
        """Return when the lame duck ends. With a quiet period, a new request puts that off."""
        quiet = self.policy.quiet_period
        quiet_end = math.inf if quiet is None else max(self.began, last_arrival) + quiet
        return min(self.lame_duck_deadline, quiet_end)

    def lame_duck_left(self, now: float) -> float:
        """Return the seconds that are left of the lame duck at the longest."""
        period = self.policy.lame_duck_period
        if self.phase is Phase.SERVING:
            return period
        return max(0.0, min(self.lame_duck_deadline - now, period))

    def grace_end(self, last_arrival: float = -math.inf) -> float:
        """Return when work in flight is cancelled, after a stop. A new request may put it off."""
        if self.phase is Phase.LAME_DUCK:
            return self.lame_duck_end(last_arrival) + self.policy.grace_period
        return self.deadline

    def give_up_at(self) -> float:
        """Return when a drain without a stop counts as forced if work is still in flight.

        Nothing is cancelled then: only a stop does that.
        """
        return self.began + self.policy.lame_duck_period + self.policy.grace_period

    def phase_left(self, now: float) -> float:
        """Return the seconds that the current phase may last; infinite where nothing ends it."""
        match self.phase:
            case Phase.SERVING:
                return math.inf
            case Phase.LAME_DUCK:
                return self.lame_duck_left(now) if self.stopping else math.inf
            case Phase.STOPPED:
                return 0.0
            case _:
                return max(0.0, self.deadline - now)

    def time_left(self, now: float) -> float:
        """Return the seconds until work is cancelled; infinite before a stop.

        Once work is cancelled: the seconds until the current phase has to end.
        """
        if not self.stopping:
            return math.inf
        if self.phase in (Phase.SERVING, Phase.LAME_DUCK):
            return self.lame_duck_left(now) + self.policy.grace_period
        return max(0.0, self.deadline - now)

    def whole_time_left(self, now: float) -> float:
        """Return the seconds until the last phase has to end; infinite before a stop."""
        after = 0.0
        if self.phase is Phase.SERVING or self.waiting:
            after += self.policy.cancel_period
        if self.phase not in (Phase.CLEANUP, Phase.STOPPED):
            after += self.policy.cleanup_period
        return self.time_left(now) + after

    def elapsed(self, now: float) -> float:
        """Return the seconds from the beginning of the drain to now, or to its end."""
        if self.phase is Phase.SERVING:
            return 0.0
        return (now if self.ended is None else self.ended) - self.began


def step(drain: Drain, event: Event, now: float) -> Drain:
    """Return *drain* after *event*; the very same object where the event changes nothing."""
    policy, phase = drain.policy, drain.phase
    match event:
        case Begin(reason, lame_duck, resume_after) if phase is Phase.SERVING:
            return drain._replace(
                phase=Phase.LAME_DUCK,
                number=drain.number + 1,
                reason=reason,
                began=now,
                lame_duck_deadline=now + (policy.lame_duck_period if lame_duck else 0.0),
                undo_at=_after(now, resume_after),
            )
        # Somebody joins the drain. That can only put the undo off: all who asked for the drain have
        # to allow it. `inf`, for a caller who does not, is the latest time there is.
        case Begin(resume_after=resume_after) if (
            drain.waiting and not drain.stopping and drain.undo_at < _after(now, resume_after)
        ):
            return drain._replace(undo_at=_after(now, resume_after))
        case Stop(reason, lame_duck, failed) if not drain.stopping:
            begun = step(drain, Begin(reason), now) if phase is Phase.SERVING else drain
            stopped = begun._replace(stopped_by=reason, failed=failed, undo_at=math.inf)
            return stopped if lame_duck else step(stopped, Step.END_LAME_DUCK, now)
        # Also after a drain: the next server starts with a policy of its own.
        case Adopt(policy) if not drain.waiting and policy is not drain.policy:
            return drain._replace(policy=policy)
        case Step.RESUME if drain.held:
            return Drain(policy=policy, number=drain.number)
        # Whoever waits for `undo_at` may come too late for it: another caller has put it off.
        case Step.UNDO if now >= drain.undo_at:
            return step(drain, Step.RESUME, now)
        case Step.END_LAME_DUCK if phase is Phase.LAME_DUCK and not drain.hurried:
            deadline = min(now, drain.lame_duck_deadline)
            return drain._replace(lame_duck_deadline=deadline, hurried=True)
        # From here on nothing leads back to SERVING: the listener cannot be opened again.
        case Step.CLOSE if phase is Phase.LAME_DUCK:
            return drain._replace(phase=Phase.DRAINING, deadline=now + policy.grace_period)
        case Step.CANCEL if drain.waiting:
            return drain._replace(
                phase=Phase.CANCELLING,
                deadline=now + policy.cancel_period,
                # In the lame duck the deadline is infinite: the grace period has not begun.
                cut_short=now < drain.deadline,
            )
        case Step.CLEAN_UP if phase in (Phase.DRAINING, Phase.CANCELLING):
            return drain._replace(phase=Phase.CLEANUP, deadline=now + policy.cleanup_period)
        case Step.FINISH if phase is Phase.CLEANUP:
            return drain._replace(phase=Phase.STOPPED, ended=now)
        # In its lame duck a drain goes on with the next server: it was begun before the start.
        case Step.RESTART if phase not in (Phase.SERVING, Phase.LAME_DUCK):
            return Drain(policy=policy, number=drain.number)
    return drain


def _after(now: float, seconds: float | None) -> float:
    return math.inf if seconds is None else now + seconds


class HistoryEntry(NamedTuple):
    """An event that has happened, and how much was in flight at that moment."""

    event: Event
    at: float
    in_flight: int


class Change(NamedTuple):
    """An entry, with the drain before it and after it: the same object if it changed nothing."""

    entry: HistoryEntry
    before: Drain
    after: Drain


class History:
    """Everything that has happened to a drainer, in order. The only thing in the core that changes.

    `list.append` is one C call: no signal handler and no other thread comes into the middle of it.
    So the order of the list is the order of events, everybody who asks folds the same list, and no
    trigger waits for a lock that the code it interrupted may hold.
    """

    __slots__ = ("_entries", "_read", "_start", "_told")

    def __init__(self, policy: DrainPolicy) -> None:
        self._entries: list[HistoryEntry] = []
        self._start = Drain(policy=policy)
        # Both pairs are only caches of a fold: how many entries were folded, and the result. One
        # assignment replaces a pair. A pair that is out of date costs the time to fold the rest.
        self._read = (0, self._start)
        self._told = self._read

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: HistoryEntry) -> Change | None:
        """Append *entry* and return what it changed; return None if it would change nothing.

        Two callers may both see that their entry would change something, and both append. The fold
        then finds that the second of them changes nothing, and its caller learns so.
        """
        drain = self.drain()
        if step(drain, entry.event, entry.at) is drain:
            return None
        # Read the cache before the append: afterwards the fold in it may have passed the entry.
        at, drain = self._read
        self._entries.append(entry)
        return next(change for change in self._changes(at, drain) if change.entry is entry)

    def drain(self) -> Drain:
        """Return the drain as it stands."""
        at, drain = self._read
        for change in self._changes(at, drain):
            at, drain = at + 1, change.after
        self._read = at, drain
        return drain

    def change(self, index: int) -> Change:
        """Return what the entry at *index* changed. Cheap if the last call had the index before."""
        at, drain = self._told
        if at > index:
            at, drain = 0, self._start
        for place, change in enumerate(self._changes(at, drain), start=at):
            if place == index:
                self._told = index + 1, change.after
                return change
        raise IndexError(f"the history has no entry {index}")

    def _changes(self, at: int, drain: Drain) -> Iterator[Change]:
        """Yield each change from entry *at* on; *drain* is the one before it."""
        for entry in self._entries[at:]:
            before, drain = drain, step(drain, entry.event, entry.at)
            yield Change(entry, before, drain)
