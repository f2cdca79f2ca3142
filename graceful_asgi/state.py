"""What a drain is at one moment, and the triggers that change it. It never waits.

Every method is one synchronous step, safe from any thread and in a signal handler: it changes
state, and leaves logging and hooks to the event loop (see `bulletin`).
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from . import journal
from .backend import Clock, running_clock
from .bulletin import Bulletin
from .inflight import InFlight, Work
from .phase import Event, Phase, PhaseChange, advance
from .policy import DrainPolicy
from .report import DrainReport, DrainStatistics, StuckWork, Tally, stuck_work

if TYPE_CHECKING:
    from .edge import Edge


class DrainState:
    """Phase, work in flight and one clock: what `Drainer` decides with."""

    def __init__(self, policy: DrainPolicy | None = None, *, clock: Clock | None = None) -> None:
        self.policy = DrainPolicy.from_env() if policy is None else policy
        self.phase = Phase.SERVING
        self._given_clock = clock
        self.in_flight = InFlight(clock or self._first_time)
        self.bulletin = Bulletin()
        # Re-entrant: a signal handler interrupts the very thread that may be holding it.
        self._lock = threading.RLock()
        # The first trigger takes it out: one step that no signal handler can come in between.
        self._unstopped, self._stopped_by = [True], ("", True)
        self._reset()

    def _reset(self) -> None:
        self.reason = ""
        self.edge: Edge | None = None
        self._began = self._deadline = self._next_progress = math.inf
        self._lame_duck_deadline = self._lame_duck_cut = math.inf
        self._ended: float | None = None
        self._last_arrival = -math.inf
        self._tally = Tally()
        self._ignored: set[tuple[str, Phase]] = set()
        self.in_flight.on_leave = None
        self.in_flight.cancelled = False
        self._unbegun = [True]  # last: a signal that comes now finds everything else as it was

    @property
    def stopping(self) -> bool:
        """Whether a stop has come: the drain ends with the process."""
        return not self._unstopped

    # Triggers

    def begin(self, reason: str, *, lame_duck: bool = True) -> bool:
        """Begin a drain that does not end the process: it waits for a stop, or for `resume`.

        Idempotent: the first trigger counts; a later one is noted in the log as ignored. Safe
        from any thread and in a signal handler.

        Args:
            reason: what the log and the report name as the cause.
            lame_duck: False counts the lame duck as passed.

        Returns:
            Whether this call began the drain.
        """
        with self._lock:
            return self._start(reason, lame_duck=lame_duck) or self._ignore(reason)

    def _start(self, reason: str, *, lame_duck: bool) -> bool:
        try:
            self._unbegun.pop()
        except IndexError:
            return False
        self._began = self._last_arrival = now = self.now()
        self._lame_duck_deadline = now + self.policy.lame_duck_period
        if not lame_duck:
            self._lame_duck_cut = now
        self.reason = reason
        self.in_flight.on_leave = self._left
        return self._enter(Event.BEGIN)

    def stop(self, reason: str, *, lame_duck: bool = True) -> bool:
        """Make the drain end the process, beginning it where needed. For edges.

        The lame duck counts from where the drain began, so a stop that follows a long enough
        `begin` has none left. Idempotent, and as safe as `begin`.

        Returns:
            Whether this call was the first stop.
        """
        with self._lock:
            try:
                self._unstopped.pop()
            except IndexError:
                return self._ignore(reason)
            self._stopped_by = reason, lame_duck
            if not lame_duck:
                self._lame_duck_cut = self.now()
            if not self._start(reason, lame_duck=lame_duck):
                began_by = self.reason
                self.bulletin.post(lambda: journal.stop_follows(reason, began_by))
            return True

    def resume(self) -> bool:
        """Call a drain off: back to serving. Safe from any thread and in a signal handler.

        Returns:
            Whether it did. A drain with a stop behind it, or past its lame duck, goes on.
        """
        with self._lock:
            if self.stopping or not self._enter(Event.RESUME):
                return self._ignore("resume")
            self._reset()
            if self.stopping:  # by a signal, in the midst of this
                reason, lame_duck = self._stopped_by
                self._start(reason, lame_duck=lame_duck)
            return True

    def abort(self) -> bool:
        """Wait no longer: cancel what is in flight. Safe from any thread and in a signal handler.

        Returns:
            Whether it did; False where no drain is under way, or it is past waiting.
        """
        with self._lock:
            if not self._enter(Event.CANCEL):
                return self._ignore("abort")
            self._deadline = self.now() + self.policy.cancel_period
            if self.edge is None:  # no `drain` is waiting that would see to it
                self.in_flight.cancel()
            return True

    def _enter(self, event: Event) -> bool:
        with self._lock:
            phase = advance(self.phase, event)
            if phase is None:
                return False
            change = PhaseChange(
                previous=self.phase,
                phase=phase,
                reason=self.reason,
                in_flight=len(self.in_flight),
            )
            self.phase = phase
        self.bulletin.post_phase(change)
        return True

    def _ignore(self, what: str) -> bool:
        # Said once: gunicorn repeats SIGTERM every second to a worker it wants gone.
        phase = self.phase
        if (what, phase) not in self._ignored:
            self._ignored.add((what, phase))
            self.bulletin.post(lambda: journal.ignored(what, phase))
        return False

    # Looking at it

    def statistics(self) -> DrainStatistics:
        """Return the state of this moment."""
        now, tally, oldest = self.now(), self._tally, self.in_flight.oldest()
        return DrainStatistics(
            phase=self.phase,
            reason=self.reason,
            in_flight=len(self.in_flight),
            oldest=None if oldest is None else stuck_work(oldest, now),
            completed=tally.completed,
            cancelled=tally.cancelled,
            aborted=tally.aborted,
            rejected=tally.rejected,
            elapsed=self._elapsed(),
            time_left=self.time_left(),
        )

    def report(self) -> DrainReport:
        """Return the report of the drain up to now."""
        tally = self._tally
        return DrainReport(
            reason=self.reason,
            completed=tally.completed,
            cancelled=tally.cancelled,
            aborted=tally.aborted,
            rejected=tally.rejected,
            elapsed=self._elapsed(),
            stuck=tally.stuck,
        )

    def time_left(self) -> float:
        """Seconds until the work in flight is cancelled, at the longest; infinite before a stop.

        Once it is cancelled: until the phase that goes on has to end.
        """
        if not self.stopping:
            return math.inf
        now, policy = self.now(), self.policy
        if self.phase in (Phase.SERVING, Phase.LAME_DUCK):
            # At its longest: each new request puts off a quiet period's end.
            end = min(self._lame_duck_deadline, self._lame_duck_cut)
            return min(max(0.0, end - now), policy.lame_duck_period) + policy.grace_period
        most = policy.cancel_period if self.phase is Phase.CANCELLING else policy.total_period
        return min(max(0.0, self._deadline - now), most)

    @property
    def waiting(self) -> bool:
        """Whether a drain is under way that waits for the work in flight."""
        return self.phase in (Phase.LAME_DUCK, Phase.DRAINING)

    def age(self) -> float:
        """Seconds since the drain began; 0 while serving."""
        return 0.0 if self.phase is Phase.SERVING else self.now() - self._began

    def _elapsed(self) -> float:
        return self.age() if self._ended is None else self._ended - self._began

    def now(self) -> float:
        """Return the time in seconds, by the one clock of this drain."""
        return self.in_flight.clock()

    def _first_time(self) -> float:
        # Whoever asks first does so in the event loop, if there is one, and knows its clock.
        self.in_flight.clock = running_clock()
        return self.in_flight.clock()

    def _lame_duck_end(self) -> float:
        quiet = self.policy.quiet_period
        quiet_end = math.inf if quiet is None else self._last_arrival + quiet
        return min(self._lame_duck_deadline, self._lame_duck_cut, quiet_end)

    # What edges tell it

    def arrived(self) -> None:
        """Note a new request while draining. For the middleware."""
        self._last_arrival = self.now()

    def overran(self, work: StuckWork) -> None:
        """Note that *work* was given up at its deadline. For edges."""
        self._tally.stuck += (work,)
        self._tally.aborted += 1
        journal.stuck(work)

    def _left(self, work: Work) -> None:
        self._tally.count(work)
        if not self.in_flight:
            self.bulletin.wake()
