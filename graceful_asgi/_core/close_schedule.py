"""The times at which a drain closes WebSockets and event streams, which would go on for ever.

The closes are spread over the lame duck, so that ten thousand clients do not come back in one
instant. What the policy lets run longer is closed just before the grace period ends. How each of
them is closed stands in `Work.close` of its class (`_asgi/websocket.py`, `_asgi/http.py`).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from .. import log
from ..event_loop import LOOKS, in_slices, spawn
from ..phase import Phase
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

    from anyio.abc import TaskGroup

    from .view import DrainView
    from .work import CloseWhen, Work

    Action = Callable[[Work], Awaitable[None]]

BOUNDARY_PERIOD: Final = 0.5
"""Seconds before the end of the grace period (at most half of it) in which an event that is half
out may be completed, and its stream closed after it."""

MOMENT: Final = 0.1
"""Seconds that the last closes may take. A server takes a message at once, or its peer reads no
more."""

CLOSE_COST: Final = 0.001
"""Seconds that one close takes of the loop at the most: with a framework, and a machine that does
other things as well. Ten thousand get ten seconds."""

HURRIED_PERIOD: Final = 1.0
"""Seconds to wait for a reply that a session may still owe, where a person waits for the end of the
server (Ctrl+C, `--reload`)."""

NOTICE_PERIOD: Final = 0.5
"""Seconds for an app to notice that its response or session was closed. An app that neither sends
nor receives in that time is cancelled: nothing else reaches it."""


class CloseSchedule:
    """Tells work to close, from the beginning of a drain on. Lives on the event loop."""

    def __init__(self, view: DrainView) -> None:
        self._view = view
        self._plan: ClosePlan | None = None
        self._running: object = None
        """The task that carries the plan out; kept, because a loop holds its tasks by weak
        references only."""

    def start(self) -> None:
        """Plan the closes of what is in flight, and carry them out. On the loop that publishes."""
        # This was posted, so it runs later than the trigger: the drain may have been called off,
        # and another one begun. The plan of a drain that was called off ends by itself.
        if self._view.state.waiting and (self._plan is None or not self._plan.is_current):
            self._plan = ClosePlan(self._view)
            self._running = spawn(partial(self._carry_out, self._plan))

    async def _carry_out(self, plan: ClosePlan) -> None:
        try:
            await plan.run()
        finally:
            if self._plan is plan:
                self._plan = None  # it would keep all the work that it has planned

    def add(self, work: Work, *, now: bool = False) -> None:
        """Plan the close of *work* that came, or showed what it is, after the drain had begun."""
        if self._plan is not None and self._view.state.waiting:
            self._plan.add(work, now=now)

    def watch(self, work: Work) -> None:
        """Cancel *work*, which was closed, if its app does not notice that by itself."""
        if self._plan is not None:
            self._plan.watch(work)

    async def close_now(self) -> None:
        """Close each stream that is between two events, and each session between two messages.

        The rest is about to be cancelled.
        """
        works = [work for work in self._view.in_flight if work.close_when != "never"]
        patience = self._view.policy.cancel_period / 2
        await self._with_each(works, lambda work: work.close_now(), patience)

    async def answer_for_apps(self) -> None:
        """Answer each request that has no answer yet, because its app has not unwound in time."""
        works = [work for work in self._view.in_flight if work.is_unanswered]
        patience = self._view.policy.cleanup_period / 2
        await self._with_each(works, lambda work: work.answer_for_app(), patience)

    async def _with_each(self, works: Collection[Work], act: Action, patience: float) -> None:
        """Call *act* with each of *works*; wait as long as writing takes, at most *patience*."""
        with anyio.move_on_after(min(MOMENT + len(works) * CLOSE_COST, patience)):
            async with anyio.create_task_group() as tasks:
                async for work in in_slices(works):
                    tasks.start_soon(_attempt, work, act)


class ClosePlan:
    """The closes of one drain."""

    def __init__(self, view: DrainView) -> None:
        self._view = view
        self._number = view.state.number
        self._due: list[tuple[float, int, Work]] = []
        """A heap of (time, number, work). The numbers keep works from being compared."""
        self._numbers = itertools.count()
        self._last_call = False
        self._watched: deque[tuple[float, Work]] = deque()

    def add(self, work: Work, *, now: bool) -> None:
        """Plan the close of *work* for a random time in the rest of the lame duck, or for now."""
        # A stream is added as it comes and as its answer starts, and is planned once. The app's own
        # `close_on_drain` is for now, even if a time is planned: `Work.close` may be called again.
        if work.close_when == "on drain" and (now or work.planned_in != self._number):
            after = 0.0 if now else random.random() * self._lame_duck_left()
            self._schedule(work, self._view.now() + after)
            self._view.notifier.wake()

    def watch(self, work: Work) -> None:
        """Check, after `NOTICE_PERIOD`, that the app of *work* has noticed that it was closed."""
        self._watched.append((self._view.now() + NOTICE_PERIOD, work))
        if len(self._watched) == 1:
            self._view.notifier.wake()

    async def run(self) -> None:
        """Tell each work to close when it is due, until the drain no longer waits for work.

        If the drain is called off, the tasks that still wait for a boundary are cancelled, and
        their work goes on.
        """
        with self._view.notifier.listening() as wakeup:
            async with anyio.create_task_group() as tasks:
                await self._plan_all()
                while self.is_current:
                    await self._tell_those_due(tasks)
                    self._cancel_unaware()
                    await wakeup.wait(self._next() - self._view.now())
                tasks.cancel_scope.cancel()

    @property
    def is_current(self) -> bool:
        """True while the drain that this plan belongs to goes on, and waits for work."""
        return self._view.state.waiting and self._view.state.number == self._number

    async def _plan_all(self) -> None:
        view = self._view
        works = await self._those_closed("on drain")
        now, period = view.now(), self._lame_duck_left()
        async for place, work in in_slices(enumerate(works), LOOKS):
            if work.planned_in != self._number:
                self._schedule(work, now + period * (place + 0.5) / len(works))
        if works and self.is_current:
            log.closing(Counter[str](work.kind for work in works), period)

    async def _those_closed(self, when: CloseWhen) -> list[Work]:
        looked_at = in_slices(self._view.in_flight, LOOKS)
        return [work async for work in looked_at if work.close_when == when]

    def _schedule(self, work: Work, due: float) -> None:
        work.planned_in = self._number
        heapq.heappush(self._due, (due, next(self._numbers), work))

    def _lame_duck_left(self) -> float:
        return max(0.0, self._view.lame_duck_end() - self._view.now())

    async def _tell_those_due(self, tasks: TaskGroup) -> None:
        view = self._view
        await self._tell(tasks, self._take())
        if view.now() >= self._boundary_time() and not self._last_call:
            self._last_call = True
            last = await self._those_closed("at deadline")
            # Before they are closed: they had all of their time, so the report names them as stuck.
            await view.record.note_stuck(view.state, last, view.now())
            await self._tell(tasks, last)

    async def _tell(self, tasks: TaskGroup, works: Iterable[Work]) -> None:
        """Tell *works* to close."""
        async for work in in_slices(works):
            if not self.is_current:
                return
            now, hurried = self._view.now(), self._view.state.hurried
            patience = HURRIED_PERIOD if hurried else self._view.policy.grace_period / 2
            tasks.start_soon(_attempt, work, partial(_close, now + patience, hurried))

    def _take(self) -> Iterator[Work]:
        """Yield the work whose time has come."""
        view = self._view
        while self._due and min(self._due[0][0], view.lame_duck_end()) <= view.now():
            yield heapq.heappop(self._due)[2]

    def _cancel_unaware(self) -> None:
        """Cancel work whose app has had its time to notice the close."""
        now, unaware = self._view.now(), []
        while self._watched and self._watched[0][0] <= now:
            _, work = self._watched.popleft()
            if work.unaware:
                unaware.append(work)
        self._view.in_flight.cancel_only(unaware)

    def _next(self) -> float:
        """Return the time at which there is something to do again."""
        due = min(self._due[0][0], self._view.lame_duck_end()) if self._due else math.inf
        unaware = self._watched[0][0] if self._watched else math.inf
        return min(due, unaware, math.inf if self._last_call else self._boundary_time())

    def _boundary_time(self) -> float:
        view = self._view
        if view.phase is not Phase.DRAINING:  # in the lame duck no deadline is set yet
            return math.inf
        period = BOUNDARY_PERIOD + len(view.in_flight) * CLOSE_COST
        return view.state.deadline - min(period, view.policy.grace_period / 2)


def _close(patience_end: float, hurried: bool, work: Work) -> Awaitable[None]:
    return work.close(patience_end, hurried=hurried)


async def _attempt(work: Work, act: Action) -> None:
    # An error in one close must not prevent the others.
    try:
        await act(work)
    except Exception:
        log.failed("closing %s %s failed; the drain goes on", work.kind, printable(work.path))
