"""What a drain is at one moment, and the triggers that change it. It never waits.

Every method is one synchronous step, safe from any thread and in a signal handler: it changes
state, and leaves logging and hooks to the event loop (see `bulletin`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .. import log
from ..event_loop import Clock, running_clock
from ..phase import Event, Phase, PhaseChange, advance
from ..policy import DrainPolicy
from .close_schedule import CloseSchedule
from .notifier import Notifier
from .outlook import Outlook
from .stuck_report import MOST, stuck_report, stuck_work
from .tally import OutcomeCounts
from .timeline import Timeline
from .work import InFlight, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._extensions.registry import Extension
    from ..report import StuckWork
    from .drainer import Drainer
    from .server import ServerAdapter


class DrainState(Outlook):
    """Phase, work in flight and one clock: what `Drainer` decides with."""

    def __init__(self, policy: DrainPolicy | None = None, *, clock: Clock | None = None) -> None:
        self.policy = DrainPolicy.from_env() if policy is None else policy
        self.phase = Phase.SERVING
        self._given_clock = clock
        self.in_flight = InFlight(clock or self._first_time)
        self.notifier = Notifier()
        self.close_schedule = CloseSchedule(self)
        self.loop_monitor = None
        self.on_stop: list[Callable[[], object]] = []
        """Called where the first stop comes from: any thread, a signal handler. For edges."""
        self.makers: list[Callable[[Drainer], Extension | None]] = []
        """Of attendants that this drainer has besides the usual ones."""
        self.on_open: list[Callable[[], object]] = []
        """Called on the event loop when the server listens. For attendants."""
        self.on_failure: list[Callable[[], object]] = []
        """Called on the event loop when the server has failed to start, and is gone. Once."""
        # Re-entrant: a signal handler interrupts the very thread that may be holding it.
        self._lock = threading.RLock()
        # The first trigger takes it out: one step that no signal handler can come in between.
        self._unstopped, self._stopped_by = [True], ("", True)
        self._failed, self._drains, self._tally = False, 0, OutcomeCounts()
        self._reset()

    def _reset(self) -> None:
        self.reason = ""
        self.adapter: ServerAdapter | None = None
        self.timeline = Timeline(self.policy)
        self._tally = self._tally.next()
        self._unreported = [True]
        self._ignored: set[tuple[str, Phase]] = set()
        self.in_flight.on_leave = None
        self.in_flight.cancelled = False
        self._unbegun = [True]  # last: a signal that comes now finds everything else as it was

    def use(self, policy: DrainPolicy) -> None:
        """Take another policy, before a drain has begun. For the middleware."""
        self.policy = policy
        self.timeline = Timeline(policy)

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
        now = self.now()
        self._drains += 1
        self.timeline.begin(now)
        if not lame_duck:
            self.timeline.cut_lame_duck(now)
        self.reason = reason
        self.in_flight.on_leave = self._left
        begun = self._enter(Event.BEGIN)
        self.notifier.post(self.close_schedule.start)
        return begun

    def stop(self, reason: str, *, lame_duck: bool = True, failed: bool = False) -> bool:
        """Make the drain end the process, beginning it where needed. For edges.

        The lame duck counts from where the drain began, so a stop that follows a long enough
        `begin` has none left. Idempotent, and as safe as `begin`. *failed* is for the report.

        Returns:
            Whether this call was the first stop.
        """
        with self._lock:
            try:
                self._unstopped.pop()
            except IndexError:
                return self._ignore(reason)
            self._stopped_by, self._failed = (reason, lame_duck), failed
            if not lame_duck:
                self.timeline.cut_lame_duck(self.now())
            if not self._start(reason, lame_duck=lame_duck):
                began_by = self.reason
                self.notifier.post(lambda: log.stop_follows(reason, began_by))
        for told in tuple(self.on_stop):
            told()
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
            self.timeline.allow(self.policy.cancel_period, self.now())
            if self.adapter is None:  # no `drain` is waiting that would see to it
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
        self.notifier.post_phase(change)
        return True

    def _ignore(self, what: str) -> bool:
        # Said once: gunicorn repeats SIGTERM every second to a worker it wants gone.
        phase = self.phase
        if (what, phase) not in self._ignored:
            self._ignored.add((what, phase))
            self.notifier.post(lambda: log.ignored(what, phase))
        return False

    def _first_time(self) -> float:
        # Whoever asks first does so in the event loop, if there is one, and knows its clock.
        self.in_flight.clock = running_clock()
        return self.in_flight.clock()

    # What edges tell it

    def arrived(self, work: Work) -> None:
        """Note *work* that is new while draining. For the middleware."""
        self.timeline.arrive(self.now())
        self.close_schedule.add(work)

    def note_open(self) -> None:
        """Tell that the server listens. For edges."""
        self.on_failure.clear()
        self._tell(self.on_open)

    def note_failure(self) -> None:
        """Tell that the server has failed to start: whoever started it may go on. For edges."""
        told, self.on_failure = self.on_failure, []
        self._tell(told)

    def _tell(self, listeners: Iterable[Callable[[], object]]) -> None:
        for told in tuple(listeners):
            try:
                told()
            except Exception:
                log.failed("%r failed; the server goes on", told)

    def overran(self, work: StuckWork) -> None:
        """Note that *work* was given up at its deadline. For edges."""
        self._tally.stuck[work] = work
        self._tally.aborted += 1
        log.stuck(work)

    def note_stuck(self, works: Iterable[Work]) -> None:
        """Remember, and say in the log, what *works* were at when their deadline passed."""
        stuck, now = self._tally.stuck, self.now()
        fresh = sorted((work for work in works if work not in stuck), key=lambda work: work.began)
        for place, work in enumerate(fresh):
            # All of their stacks would take seconds, which are those that they have to unwind.
            stuck[work] = stuck_work(work, now, closely=place < MOST)
        log.all_stuck([stuck[work] for work in fresh])

    def report_stuck(self) -> None:
        """Say in the log, once a drain, what keeps it from its end. Safe from any thread."""
        try:
            self._unreported.pop()
        except IndexError:
            return
        try:
            if self.in_flight or (
                self.loop_monitor is not None and self.loop_monitor.blocked_for()
            ):
                log.stuck_report(stuck_report(self, "grace period"))
        except Exception:
            log.failed("the stuck report failed; the drain goes on")

    def _left(self, work: Work) -> None:
        self._tally.count(work)
        if not self.in_flight:
            self.notifier.wake()
