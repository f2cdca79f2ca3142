"""`DrainRunner`: the shell around a drain. It keeps the history, waits, and asks the server to act.

Every trigger is one append to the history (see `drain`), so it is safe from any thread and in a
signal handler. A drain reads from top to bottom in `DrainRunner.drain`. Everything that can be
asked about it is in `DrainView`.

Listeners, connections, signals and ASGI are known to the adapters only. Users hold a `Drainer`,
which shows the part of this object that is theirs.
"""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import TYPE_CHECKING

import anyio.lowlevel

from .. import log
from ..event_loop import running_clock, spawn
from ..phase import Phase, PhaseChange
from ..policy import DrainPolicy
from .begun_drain import BegunDrain
from .close_schedule import CloseSchedule
from .drain import Adopt, Begin, Drain, Event, History, HistoryEntry, Step, Stop
from .server_context import ServerContext
from .stuck_watch import StuckWatch
from .view import DrainView
from .work import TrackedWork, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..event_loop import Clock
    from ..report import DrainReport
    from .server_adapter import ServerAdapter, StoppableServer
    from .server_context import Peers


class DrainRunner(DrainView):
    """Decides how one server drains, and waits for it.

    `begin`, `stop`, `resume`, `abort` and what `DrainView` has are safe from any thread and in a
    signal handler. Everything else belongs to the server's event loop.

    Args:
        policy: the periods and choices. None reads them from the environment.
        clock: returns seconds, monotonic. None takes the running loop's own.
    """

    def __init__(self, policy: DrainPolicy | None = None, *, clock: Clock | None = None) -> None:
        policy = DrainPolicy.from_env() if policy is None else policy
        super().__init__(policy, clock)
        self._given_clock = clock
        self.close_schedule: CloseSchedule = CloseSchedule(self)
        self.context: ServerContext = ServerContext()
        self.peers: Peers | None = None
        self.adapter: ServerAdapter | None = None
        """The server, once it drains."""
        self._history = History(policy)
        # `next` of it is one C call: where the loop is stuck, the watchdog's thread tells as well.
        self._told = itertools.count()
        """The next entry of the history to log and to call the hooks with."""
        self._ignored: set[tuple[int, str, Phase]] = set()
        self.stuck = StuckWatch(self)
        self._holding: object = None
        """The running `_hold`; kept, because a loop holds its tasks by weak references only."""

    @property
    def server(self) -> StoppableServer | None:
        """The server, where it can be stopped from here. Several may share the drain."""
        return next(iter(self.notifier.servers()), None)

    # Triggers

    def begin(
        self, reason: str, *, lame_duck: bool = True, resume_after: float | None = None
    ) -> bool:
        """Begin a drain that does not end the process. See `Drainer.begin`."""
        before, after = self._record(Begin(reason, lame_duck, resume_after))
        return after.number > before.number or self._ignore(reason)

    def stop(self, reason: str, *, lame_duck: bool = True, failed: bool = False) -> bool:
        """Make the drain end the process, and begin one where none is under way.

        The lame duck counts from where the drain began, so a stop that follows a long enough
        `begin` has none left. Idempotent, and as safe as `begin`. *failed* is for the report.

        Returns:
            True if this call was the first stop.
        """
        return self._add(Stop(reason, lame_duck, failed)) or self._ignore(reason)

    def resume(self) -> bool:
        """Call the drain off. See `Drainer.resume`."""
        return self._add(Step.RESUME) or self._ignore("resume")

    def abort(self) -> bool:
        """Wait no longer: cancel what is in flight. See `Drainer.abort`."""
        if not self._add(Step.CANCEL):
            return self._ignore("abort")
        if self.adapter is None:  # `drain` is not running, which would cancel the work itself
            self.in_flight.cancel()
        return True

    def _add(self, event: Event) -> bool:
        """Record *event*; return True if it changed something."""
        before, after = self._record(event)
        return after is not before

    def _record(self, event: Event) -> tuple[Drain, Drain]:
        """Append *event* to the history; return the drain before it and after it."""
        change = self._history.add(HistoryEntry(event, self.now(), len(self.in_flight)))
        self._sync()
        if change is None:
            return self.state, self.state
        self.notifier.post(self._tell_next)
        return change.before, change.after

    def _sync(self) -> None:
        """Keep what is read at each request in step with the history.

        A signal handler or a thread may add an event in the middle of this, and does the same. The
        last one to look at the length has seen every event.
        """
        seen = -1
        while seen != len(self._history):
            seen = len(self._history)
            self._show(self._history.drain())
            # Outcomes are counted while draining only, so no request pays for it while serving.
            self.in_flight.on_leave = self._left if self.record.is_open(self.state) else None

    def _tell_next(self) -> None:
        """Log the next event and call the hooks. Runs on the loop that publishes.

        Each event posts this once, and each call tells one event. So the order told is the order
        of the history, whoever posted first.
        """
        change = self._history.change(next(self._told))
        before, after, event = change.before, change.after, change.entry.event
        if after.phase is not before.phase:
            self.notifier.tell(
                PhaseChange(
                    previous=before.phase,
                    phase=after.phase,
                    reason=after.reason or before.reason,
                    in_flight=change.entry.in_flight,
                    time_left=after.phase_left(change.entry.at),
                    stopped_by=after.stopped_by or "",
                )
            )
        elif isinstance(event, Stop) and after is not before:
            log.stop_follows(event.reason, before.reason)
        if event is Step.UNDO and after is not before:
            log.caution(
                "no stop has followed the drain begun by %s: the drain is undone", before.reason
            )
        if before.phase is Phase.SERVING and after.phase is not Phase.SERVING:
            self.record.begin(after)
            if after.number == self.state.number:  # else it was called off before this was told
                self._start_watching()

    def _start_watching(self) -> None:
        """Close what would go on, in time, and watch the drain until a stop. On this loop."""
        self.close_schedule.start()
        if not self.state.stopping:
            self._holding = spawn(partial(self._hold, BegunDrain(self)))

    def _ignore(self, what: str) -> bool:
        # Logged once: gunicorn repeats SIGTERM every second to a worker that it wants gone.
        said = (self.state.number, what, self.phase)
        if said not in self._ignored:
            self._ignored.add(said)
            self.notifier.post(lambda: log.ignored(what, said[2]))
        return False

    # The drain

    async def drain(self, adapter: ServerAdapter) -> None:
        """Take a stop from where the drain stands to the cleanup. Bounded by the policy."""
        self.adapter = adapter
        self.bind()
        await self._wait(lambda: self.phase is not Phase.LAME_DUCK, self.lame_duck_end)

        # `abort` may have ended the lame duck. Then this changes nothing, and nothing waits below.
        self._enter(Step.CLOSE)
        await adapter.close_listener()

        def done() -> bool:
            return not self.in_flight and adapter.is_idle()

        await self._wait(lambda: self.phase is not Phase.DRAINING or done(), self._deadline)
        if not done():
            self._enter(Step.CANCEL)
            await self._cancel(adapter, done)

        self._enter(Step.CLEAN_UP)

    async def _cancel(self, adapter: ServerAdapter, done: Callable[[], bool]) -> None:
        # First: a coroutine that was cancelled no longer shows where it waited.
        await self.record.note_stuck(self.state, self.in_flight, self.now())
        # A request that hangs gets its 503 now, not after thousands of streams have been closed.
        self.in_flight.cancel_hung()
        await self.close_schedule.close_now()
        self.record.of(self.state).aborted += adapter.cut_answers()
        await anyio.lowlevel.checkpoint()  # the server sees the cut before the app does
        self.in_flight.cancel()
        await self._wait(done, self._deadline)
        await self.close_schedule.answer_for_apps()
        adapter.cut_connections()
        self.record.close(self.state)
        self._sync()

    def finish(self) -> DrainReport:
        """End the drain, log its report and return that. Idempotent."""
        if self._enter(Step.FINISH):
            log.finished(self.report())
        return self.report()

    def _enter(self, event: Step) -> bool:
        changed = self._add(event)
        self.notifier.publish()
        return changed

    def _deadline(self) -> float:
        return self.state.deadline

    async def _wait(self, condition: Callable[[], bool], end: Callable[[], float]) -> None:
        """Wait for *condition*, at the longest until *end*. Log how the drain goes on."""
        progress_at = self.now() + log.PROGRESS_PERIOD
        with self.notifier.listening() as wakeup:
            while not condition() and (now := self.now()) < end():
                if now >= progress_at:
                    log.progress(self.statistics())
                    progress_at = now + log.PROGRESS_PERIOD
                if now >= self.stuck.due():
                    self.stuck.report()
                await wakeup.wait(min(end(), progress_at, self.stuck.due()) - now)

    async def _hold(self, begun: BegunDrain) -> None:
        """Wait until a stop, `resume` or `abort` ends the lame duck; undo the drain at its time.

        Log how the drain goes on until its outcome is known, and the outcome.
        """
        try:
            await self._wait(
                lambda: begun.outcome() is not None or not begun.is_held,
                lambda: min(self.state.undo_at, self.now() + begun.changes_in()),
            )
            if begun.is_held and (outcome := begun.outcome()) is not None:
                log.held(outcome, self.statistics())
            with self.notifier.listening() as wakeup:
                # `step` decides: before this append another caller may have joined for longer.
                while begun.is_held and not self._enter(Step.UNDO):
                    await wakeup.wait(self.state.undo_at - self.now())
        except Exception:
            log.failed("watching the drain failed; the drain goes on, and does not undo itself")

    def bind(self, *, anew: bool = False) -> None:
        """Take the running event loop as the one that logs and calls hooks.

        With *anew* a server starts: a drainer that has been through a drain serves again.
        """
        if anew:
            self.in_flight.use(self._given_clock or running_clock())
            if self._add(Step.RESTART):
                self.in_flight.cancelled = False
                self.adapter = None
                # The old one may run on a loop that has ended.
                self.close_schedule = CloseSchedule(self)
        self.notifier.bind()
        watching = self._holding
        if anew and self.state.held and isinstance(watching, asyncio.Task) and watching.done():
            # The drain began before the server started, in a loop that has ended.
            self.close_schedule = CloseSchedule(self)
            self._start_watching()

    def use(self, policy: DrainPolicy) -> None:
        """Take another policy, before a drain has begun."""
        self._add(Adopt(policy))

    # Waiting for a drain

    async def wait_begun(self) -> None:
        """Wait until a drain begins. See `Drainer.wait_begun`."""
        await self.notifier.wait_for(lambda: self.phase is not Phase.SERVING)

    # Called by adapters, the middleware and extensions

    def arrived(self, work: Work) -> None:
        """Note *work* that is new while draining."""
        self._last_arrival = work.began = self.now()
        self.close_schedule.add(work)

    def track(self, name: str) -> TrackedWork:
        """Count the app's own work as in flight. See `Drainer.track`."""
        return TrackedWork(self.in_flight, name)

    def _left(self, work: Work) -> None:
        self.record.of(self.state).count(work)
        if not self.in_flight:
            if self.now() >= self.lame_duck_end():
                self.record.note_idle(self.state)
            self.notifier.wake()
