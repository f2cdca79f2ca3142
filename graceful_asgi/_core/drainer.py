"""The `Drainer`: the async shell around a drain's state. The drain reads top to bottom in `drain`.

Listeners, connections, signals and ASGI are known to the edges only; of those it knows the four
verbs of `Edge`.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import anyio.lowlevel

from .. import log
from ..errors import MisuseError
from ..event_loop import running_clock
from ..phase import Event, Phase
from .close_schedule import CloseSchedule
from .hold import Hold
from .server_context import ServerContext
from .state import DrainState
from .work import TrackedWork

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..event_loop import Clock
    from ..policy import DrainPolicy
    from ..report import DrainReport
    from .notifier import DrainHook
    from .server import ServerAdapter
    from .server_context import Peers
    from .watch import DrainWatch, Outcome


class Drainer(DrainState):
    """Decides how a server drains, waits for it, and remembers how it went.

    `begin`, `resume`, `abort`, `statistics` and `report` are safe from any thread and in a signal
    handler. Everything else belongs to the event loop.

    Args:
        policy: the periods and choices. None reads them from the environment.
        clock: returns seconds, monotonic. None takes the running loop's own.

    Attributes:
        phase: where the drain stands. Read only.
        in_flight: the registry of work in flight.
    """

    def __init__(self, policy: DrainPolicy | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(policy, clock=clock)
        self.hold: Hold = Hold(self)
        self.context = ServerContext()
        self.peers: Peers | None = None

    async def drain(self, adapter: ServerAdapter) -> None:
        """Take a stop from where the drain stands to the cleanup. Bounded by the policy."""
        self.adapter = adapter
        self.bind()
        self._next_progress = self.now() + log.PROGRESS_PERIOD
        await self._wait(lambda: self.phase is not Phase.LAME_DUCK, self.timeline.lame_duck_end)

        self._enter(Event.CLOSE)
        self._allow(self.policy.grace_period)
        await adapter.close_listener()

        def done() -> bool:
            return not self.in_flight and adapter.is_idle()

        await self._wait(lambda: self.phase is not Phase.DRAINING or done(), self._phase_end)
        if not done():
            self._enter(Event.CANCEL)
            self._allow(self.policy.cancel_period)
            await self._cancel(adapter, done)

        self._enter(Event.CLEAN_UP)
        self._allow(self.policy.cleanup_period)

    async def _cancel(self, adapter: ServerAdapter, done: Callable[[], bool]) -> None:
        self.note_stuck(self.in_flight)
        await self.close_schedule.close_now()
        self._tally.aborted += adapter.cut_answers()
        await anyio.lowlevel.checkpoint()  # the server learns of the cut before the app does
        self.in_flight.cancel()
        await self._wait(done, self._phase_end)
        adapter.cut_connections()
        self.in_flight.on_leave = None  # what is left counts now, not when it ends after all
        self._tally.aborted += len(self.in_flight)

    def finish(self) -> DrainReport:
        """End the drain: say in the log what it came to, and return that. Idempotent."""
        if self._enter(Event.FINISH):
            self.timeline.ended = self.now()
            self.notifier.publish()
            log.finished(self.report())
        return self.report()

    def _allow(self, period: float) -> None:
        self.timeline.allow(period, self.now())
        self.notifier.publish()

    def _phase_end(self) -> float:
        return self.timeline.deadline

    async def _wait(self, condition: Callable[[], bool], end: Callable[[], float]) -> None:
        """Wait for *condition*, until *end* at the longest, saying in the log how it goes."""
        with self.notifier.listening() as listener:
            while not condition() and (now := self.now()) < end():
                if now >= self._next_progress:
                    log.progress(self.statistics())
                    self._next_progress = now + log.PROGRESS_PERIOD
                if now >= self.report_due():
                    self.report_stuck()
                await listener.wait(min(end(), self._next_progress, self.report_due()) - now)

    async def wait_drained(self) -> DrainReport:
        """Wait until the lame duck has passed and nothing is in flight; return the report so far.

        Waits for a drain to begin where none has, and through one that is called off. The caller
        must not be in flight itself (a request handler is).
        """
        if not self.notifier.bound:
            self.bind()
        with self.notifier.listening() as listener:
            while not self.drained:
                left = self.timeline.lame_duck_end() - self.now()
                await listener.wait(left if left > 0 else math.inf)
        return self.report()

    async def wait_begun(self) -> None:
        """Wait until a drain begins; return at once when one has."""
        if not self.notifier.bound:
            self.bind()
        with self.notifier.listening() as listener:
            while self.phase is Phase.SERVING:
                await listener.wait(math.inf)

    async def wait_outcome(self, watch: DrainWatch) -> Outcome:
        """Wait until the drain that *watch* looks at has come out. For the middleware."""
        with self.notifier.listening() as listener:
            while (outcome := watch.outcome()) is None:
                await listener.wait(watch.changes_in())
        return outcome

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds, looked at as the drain changes. For the middleware."""
        with self.notifier.listening() as listener:
            while not condition():
                await listener.wait(math.inf)

    @property
    def drained(self) -> bool:
        """Whether a drain is under way that has nothing to wait for. Safe from any thread."""
        if self.phase in (Phase.CLEANUP, Phase.STOPPED):
            return True
        if self.phase is Phase.SERVING or self.in_flight:
            return False
        return self.phase is not Phase.LAME_DUCK or self.now() >= self.timeline.lame_duck_end()

    def track(self, name: str) -> TrackedWork:
        """Count the app's own work as in flight: `with drainer.track("nightly export"):`.

        When the grace period ends the surrounding task is cancelled (asyncio), or the block
        (trio). In a plain thread the work counts, but nothing can cancel it.
        """
        return TrackedWork(self.in_flight, name)

    def add_hook(self, hook: DrainHook) -> None:
        """Have *hook* called with each `PhaseChange`, on the event loop.

        Where that is stuck, the last calls come from another thread, at the hard deadline. An
        error in a hook is logged, and changes nothing about the drain.

        Raises:
            MisuseError: (a `RuntimeError`) *hook* is a coroutine function: nobody awaits it.
        """
        if inspect.iscoroutinefunction(hook):
            raise MisuseError(f"{hook!r} is a coroutine function; a hook is a plain function")
        self.notifier.hooks.append(hook)

    def bind(self, *, anew: bool = False) -> None:
        """Take the running event loop as the one that logs and calls hooks. For edges.

        With *anew* a server starts: a drainer that has been through a drain serves again.
        """
        if anew:
            self.in_flight.clock = self._given_clock or running_clock()
            if self._enter(Event.RESTART):
                self._unstopped, self._failed = [True], False
                self.close_schedule = CloseSchedule(self)  # what the old one ran on may be gone
                self._reset()
        self.notifier.bind()
