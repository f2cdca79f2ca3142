"""When work that would go on for ever is ended: WebSockets, event streams. How is its own affair.

The ends are spread over the lame duck, so that ten thousand clients do not come back in one
instant. What the policy lets run longer is ended just before the grace period is.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import anyio

from .. import log
from ..event_loop import spawn
from ..phase import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from anyio.abc import TaskGroup

    from .view import DrainView
    from .work import Work

    Action = Callable[[], Coroutine[Any, Any, None]]

BOUNDARY_PERIOD: Final = 0.5
"""Seconds before the end of the grace period (at most half of it) in which an event that is half
out may be completed, and its stream ended after it."""

MOMENT: Final = 0.1
"""Seconds for ends that nobody can wait for any more. A server that takes them does so at once."""


class CloseSchedule:
    """Ends long-lived work at its time, from a drain's beginning on. Lives on the event loop."""

    def __init__(self, state: DrainView) -> None:
        self._state = state
        self._plan: list[tuple[float, int, Work]] = []
        self._actions: list[Action] = []
        self._number = itertools.count()
        self._last_call = False
        self._running: object = None
        """What runs them; kept, because a loop holds its tasks by weak references only."""
        self._tasks: TaskGroup | None = None

    def start(self) -> None:
        """Plan the ends of what is in flight, and go on with them. For the loop that publishes."""
        state = self._state
        self._plan, self._last_call = [], False
        if not state.waiting:  # called off meanwhile
            return
        for work in state.in_flight:
            work.close_at = math.inf
        works = [work for work in state.in_flight if work.close_when == "on drain"]
        now, period = state.now(), self._time_for_it()
        for place, work in enumerate(works):
            self._schedule(work, now + period * (place + 0.5) / len(works))
        if works:
            log.closing(Counter[str](work.kind for work in works), period)
        if self._running is None:
            self._running = spawn(self._run)
        else:
            state.notifier.wake()

    def add(self, work: Work) -> None:
        """Plan the end of *work* that came, or showed what it is, when the others were planned."""
        state = self._state
        if state.waiting and work.close_when == "on drain" and math.isinf(work.close_at):
            self._schedule(work, state.now() + random.random() * self._time_for_it())
            state.notifier.wake()

    def start_soon(self, action: Action) -> None:
        """Run *action* beside the ends that come; not where it is too late for any."""
        if self._tasks is not None:
            self._tasks.start_soon(_attempt, action)
        elif self._running is not None:
            self._actions.append(action)

    def is_due(self, work: Work) -> bool:
        """Say whether the time has come to end *work*, at the next moment that it allows."""
        state = self._state
        if work.close_when == "never":
            return False
        if work.close_when == "at deadline":
            return state.phase is Phase.CANCELLING or state.now() >= self._boundary_time()
        if state.phase is Phase.LAME_DUCK:
            return state.now() >= min(work.close_at, state.lame_duck_end())
        return state.phase in (Phase.DRAINING, Phase.CANCELLING)

    def patience_end(self) -> float:
        """Return when work that is due is no longer let finish what it is at: halfway through the
        grace period, so that what it was at can be seen to end."""
        state = self._state
        if state.phase is Phase.LAME_DUCK:
            return state.lame_duck_end() + state.policy.grace_period / 2
        return state.state.deadline - state.policy.grace_period / 2

    async def close_now(self) -> None:
        """End all that can be ended in this moment. What cannot is about to be cancelled."""
        with anyio.move_on_after(MOMENT):
            async with anyio.create_task_group() as tasks:
                for work in self._state.in_flight:
                    if work.close_when != "never":
                        tasks.start_soon(_attempt, work.close)

    # The run

    async def _run(self) -> None:
        state = self._state
        async with anyio.create_task_group() as self._tasks:
            try:
                while self._actions:
                    self.start_soon(self._actions.pop())
                with state.notifier.listening() as listener:
                    while state.waiting:
                        for work in self._take():
                            self.start_soon(work.close)
                        await listener.wait(self._next() - state.now())
            finally:
                tasks, self._running, self._tasks = self._tasks, None, None
            # No await since the last look at the phase: `start` begins a run of its own by now.
            if state.phase is not Phase.SERVING:
                tasks.cancel_scope.cancel()  # what has not worked by now never will

    def _take(self) -> Iterator[Work]:
        """Yield the work whose time has come."""
        state = self._state
        now, end = state.now(), state.lame_duck_end()
        while self._plan and min(self._plan[0][0], end) <= now:
            work = heapq.heappop(self._plan)[2]
            work.close_at = now  # and stays so, should a request put the lame duck's end off
            yield work
        if now >= self._boundary_time() and not self._last_call:
            self._last_call = True
            last = [work for work in state.in_flight if work.close_when == "at deadline"]
            state.record.note_stuck(state.state, last, state.now())
            yield from last

    def _next(self) -> float:
        """Return when there is something to do again."""
        last_call = math.inf if self._last_call else self._boundary_time()
        if not self._plan:
            return last_call
        return min(last_call, self._plan[0][0], self._state.lame_duck_end())

    def _schedule(self, work: Work, due: float) -> None:
        work.close_at = due
        heapq.heappush(self._plan, (due, next(self._number), work))

    def _time_for_it(self) -> float:
        return max(0.0, self._state.lame_duck_end() - self._state.now())

    def _boundary_time(self) -> float:
        state = self._state
        if state.phase is not Phase.DRAINING:
            return math.inf
        return state.state.deadline - min(BOUNDARY_PERIOD, state.policy.grace_period / 2)


async def _attempt(action: Action) -> None:
    # One that cannot be ended must not keep the others from it.
    try:
        await action()
    except Exception:
        log.failed("ending long-lived work failed; the drain goes on")
