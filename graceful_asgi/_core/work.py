"""The registry of work in flight: what has started and not finished. It never waits.

Every `InFlight.enter` has its `InFlight.leave` in a `finally`, so the count is right after any
failure. Adding to a set of Python objects, taking out of it and copying it are one step each under
the GIL: no lock.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

import anyio

from ..event_loop import SLICE, Clock, RunSoon, current_task, run_soon, running_trio

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from ..report import Kind, Outcome, StuckWork

CloseWhen = Literal["never", "on drain", "at deadline"]
"""The moment at which a drain closes work that would go on: as it begins, just before the grace
period ends, or never. Work that is never closed is cancelled when the grace period ends."""

SCOPE_KEY: Final = "graceful_asgi"
"""The key in a scope that holds the work of a counted call. When the call is over, it holds the
record of the server instead: the work refers to the scope, and only the garbage collector would
free that cycle. A second middleware further in finds the key, and passes the call on.

The key is not in the state, because a server may hand out one state for all calls.
"""

_Cancellable: TypeAlias = "asyncio.Task[Any] | anyio.CancelScope"


class InFlight:
    """The work that is in flight now. Safe to read from any thread and in a signal handler."""

    __slots__ = ("cancelled", "clock", "last_tick", "on_leave", "works")

    def __init__(self, clock: Clock) -> None:
        self.works: set[Work] = set()
        self.cancelled = False
        self.use(clock)
        self.on_leave: Callable[[Work], object] | None = None
        """Called with work that ends. None while serving, so that no request pays for a call."""

    def __len__(self) -> int:
        return len(self.works)

    def __iter__(self) -> Iterator[Work]:
        return iter(tuple(self.works))

    def use(self, clock: Clock) -> None:
        """Take the time from *clock* from now on. Another server may tick, or none."""
        self.clock = clock
        self.last_tick = 0.0
        """The time of the server's last tick; 0.0 where none ticks. While serving, a request takes
        it for the time at which it began: to ask the clock would cost each of them more. So it may
        seem older than it is, by the period of a tick (uvicorn's is 0.1 s) or by as long as the
        loop was blocked. It never seems younger."""

    def tick(self) -> None:
        """Note the time for the requests that come until the next tick."""
        self.last_tick = self.clock()

    def enter(self, work: Work) -> None:
        """Count *work* as in flight from now on, in the task that calls this."""
        work.began = self.clock()
        work.cancelled = work.answered_for_app = False
        work._cancel_scope = None
        work.task = current_task()
        self.works.add(work)

    def leave(self, work: Work) -> None:
        """Take out *work* that has ended."""
        self.works.discard(work)
        if self.on_leave is not None:
            self.on_leave(work)

    def cancel(self) -> None:
        """Cancel all work, and let none begin. Safe from any thread."""
        self.cancelled = True
        self.cancel_only(self)

    def cancel_hung(self) -> None:
        """Cancel what has not begun its answer, and is not closed at its deadline."""
        self.cancel_only([w for w in self if w.is_unanswered and w.close_when == "never"])

    def cancel_only(self, works: Iterable[Work]) -> None:
        """Cancel *works*. Safe from any thread; they unwind later, each on its own loop.

        One task can do several pieces of work: a request handler that tracks a part of itself. The
        task is cancelled once. A second cancellation would remain after the first was caught.
        """
        # One call for each loop, however many tasks: `call_soon_threadsafe` writes to a socket. Two
        # bound methods of the same loop are equal, so they are one key.
        loops: dict[RunSoon, dict[_Cancellable, list[Work]]] = {}
        for work in works:
            if work.cancelled:
                continue
            work.cancelled = True
            if (target := work.cancellable()) is not None:
                cancellable, soon = target
                loops.setdefault(soon, {}).setdefault(cancellable, []).append(work)
        for soon, targets in loops.items():
            self._cancel_soon(soon, iter(targets.items()))

    def _cancel_soon(
        self, soon: RunSoon, targets: Iterator[tuple[_Cancellable, list[Work]]]
    ) -> None:
        # A closed loop runs nothing any more: its work can neither be cancelled nor end.
        with contextlib.suppress(RuntimeError):
            soon(lambda: self._cancel_slice(soon, targets))

    def _cancel_slice(
        self, soon: RunSoon, targets: Iterator[tuple[_Cancellable, list[Work]]]
    ) -> None:
        """Cancel the next of *targets*, and leave the rest for the next turn of the loop."""
        sliced = tuple(itertools.islice(targets, SLICE))
        for cancellable, works in sliced:
            # If the work has ended meanwhile, its task may be at something else: leave it alone.
            if not self.works.isdisjoint(works):
                for work in works:
                    work.before_cancel()
                cancellable.cancel()
        if len(sliced) == SLICE:
            self._cancel_soon(soon, targets)


class Work:
    """One piece of work in flight, from `InFlight.enter` to `InFlight.leave`.

    Attributes:
        began: when it entered, by the drainer's clock, or at the server's tick before that.
        task: the task that does the work; None outside of asyncio.
        cancelled: True once it was cancelled by us.
        answered_for_app: True once its peer has got an answer in the place of the app, which has
            not unwound.
        planned_in: the number of the drain that has planned a close of it. A set of the work that
            is planned would keep all of it in memory until the process ends.

    The properties `method` to `sent` are those of `StuckWork`, which describes each.

    What only a drain sets has its default in the class. So an object that comes and goes while
    serving has only what is in its slots: to fill in the rest would cost each request more.
    """

    __slots__ = ("__dict__", "began", "task")

    kind: ClassVar[Kind] = "task"
    began: float
    task: asyncio.Task[Any] | None
    cancelled: bool = False
    answered_for_app: bool = False
    planned_in: int = 0
    _cancel_scope: tuple[anyio.CancelScope, RunSoon] | None = None

    @property
    def method(self) -> str:
        return ""

    @property
    def path(self) -> str:
        return ""

    @property
    def route(self) -> str:
        return ""

    @property
    def client(self) -> str:
        return ""

    @property
    def sent(self) -> int | None:
        return None

    @property
    def progress(self) -> str:
        """The progress of the work, in a few words."""
        return "running"

    @property
    def cut(self) -> bool:
        """True if an end at this moment would leave the peer with a part of an answer."""
        return False

    @property
    def is_unanswered(self) -> bool:
        """True while a peer waits for an answer, and none has begun."""
        return False

    @property
    def close_when(self) -> CloseWhen:
        """The moment at which a drain may close the work. It may change while the work goes on."""
        return "never"

    @property
    def unaware(self) -> bool:
        """True if the drain has closed the work, and the app cannot know that yet."""
        return False

    @property
    def is_server_error(self) -> bool:
        """True if the work ends by itself at this moment with an error for its client."""
        return False

    async def close(self, patience_end: float, *, hurried: bool = False) -> None:
        """Close the work at its next boundary: give it an end that its peer takes for one.

        Return once that is done or the work has ended by itself. If this call is cancelled, the
        work goes on. A second call while the first one waits is for an app that has called
        `close_on_drain` meanwhile.

        Args:
            patience_end: until when to wait for a boundary that cannot be observed, by the
                drainer's clock.
            hurried: True if a person waits for the end. Then work that looks endless is taken for
                endless.
        """

    async def close_now(self) -> None:
        """Close the work if this moment is a boundary: it is about to be cancelled."""

    async def answer_for_app(self) -> None:
        """Give the peer an answer in the app's place, if none has begun.

        Called at the end of the cancel period: the app has not unwound, and may never.
        """

    def before_cancel(self) -> None:
        """Note what cannot be seen any more once the work is cancelled. Called on its loop."""

    @property
    def outcome(self) -> Outcome:
        """The outcome of the work, if it ends at this moment."""
        if not self.cancelled:
            return "completed"
        return "aborted" if self.cut else "cancelled"

    def coroutine(self) -> Coroutine[Any, Any, Any] | None:
        """Return the coroutine of the task that does the work, if one is known."""
        coroutine = None if self.task is None else self.task.get_coro()
        return coroutine if isinstance(coroutine, Coroutine) else None

    def cancel_with(self, cancel_scope: anyio.CancelScope) -> None:
        """Use *cancel_scope* to cancel the work, where there is no asyncio task to cancel."""
        self._cancel_scope = cancel_scope, run_soon()
        if self.cancelled:
            cancel_scope.cancel()

    def cancellable(self) -> tuple[_Cancellable, RunSoon] | None:
        """Return the object to cancel, and the function that runs a call on its loop."""
        if self.task is not None:
            return self.task, self.task.get_loop().call_soon_threadsafe
        return self._cancel_scope

    def uncancel(self) -> bool:
        """Take our own cancellation back after catching it; return False if there is another one.

        Python 3.10 does not count cancellations; there, ours is taken for the only one.
        """
        if self.task is None or not hasattr(self.task, "uncancel"):
            return True
        return bool(self.task.uncancel() == 0)


class TrackedWork(Work):
    """Work that the app declares: `with drainer.track("nightly export"):`."""

    __slots__ = ("_in_flight", "_name")

    def __init__(self, in_flight: InFlight, name: str) -> None:
        self._in_flight = in_flight
        self._name = name

    def __enter__(self) -> None:
        # Not in `__init__`: the object may be made in one task and entered in another, and again.
        in_flight = self._in_flight
        in_flight.enter(self)
        if self.task is None and running_trio() is not None:
            self.cancel_with(anyio.CancelScope().__enter__())
        if in_flight.cancelled:  # it comes too late to be waited for
            in_flight.cancel()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._in_flight.leave(self)
        if self._cancel_scope is not None:
            cancel_scope, _ = self._cancel_scope
            return cancel_scope.__exit__(exc_type, exc, traceback)
        return None

    @property
    def path(self) -> str:
        return self._name


@dataclass(slots=True, eq=False, repr=False)
class OutcomeCounts:
    """Counts the outcomes of the work in one drain."""

    completed: int = 0
    closed: int = 0
    cancelled: int = 0
    aborted: int = 0
    rejected: int = 0
    server_errors: int = 0
    """The number of completed ones that were errors of the app."""
    stuck: dict[object, StuckWork] = field(default_factory=dict)
    """The work that was still in flight at its deadline."""

    def count(self, work: Work) -> None:
        """Count *work*, which has just ended."""
        outcome = work.outcome
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome == "completed" and work.is_server_error:
            self.server_errors += 1

    def by_name(self) -> dict[Outcome, int]:
        """Return the counts by name, as `DrainReport` and `DrainStatistics` take them."""
        return {
            "completed": self.completed,
            "closed": self.closed,
            "cancelled": self.cancelled,
            "aborted": self.aborted,
            "rejected": self.rejected,
        }

    @staticmethod
    def sum(all_counts: Iterable[OutcomeCounts]) -> OutcomeCounts:
        """Return the sums of several counts. They name no stuck work."""
        total = OutcomeCounts()
        for counts in all_counts:
            for name, count in counts.by_name().items():
                setattr(total, name, getattr(total, name) + count)
            total.server_errors += counts.server_errors
        return total
