"""The registry of work in flight: what has started and not finished. It never waits.

Entering and leaving are one context manager, so the count is right after any failure. Sets of
Python objects are added to, removed from and copied in one step under the GIL: no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import anyio

from ..event_loop import Clock, RunSoon, run_soon

if TYPE_CHECKING:
    from types import TracebackType

    from ..report import Kind, Outcome, StuckWork

CloseWhen = Literal["never", "on drain", "at deadline"]
"""When work may be ended before it is over by itself: as the drain begins, just before the grace
period ends, or never (then it is cancelled at the end of that)."""


class InFlight:
    """What is in flight now. Safe to read from any thread and in a signal handler."""

    __slots__ = ("cancelled", "clock", "on_leave", "works")

    def __init__(self, clock: Clock) -> None:
        self.works: set[Work] = set()
        self.clock = clock
        self.cancelled = False
        self.on_leave: Callable[[Work], object] | None = None
        """Told of work that ends. None while serving: then nobody asks, and nobody pays."""

    def __len__(self) -> int:
        return len(self.works)

    def __iter__(self) -> Iterator[Work]:
        return iter(tuple(self.works))

    def leave(self, work: Work) -> None:
        """Take out *work* that has ended."""
        self.works.discard(work)
        if self.on_leave is not None:
            self.on_leave(work)

    def cancel(self) -> None:
        """Cancel all work, and let none begin. Safe from any thread."""
        self.cancelled = True
        self.cancel_only(self)

    def cancel_only(self, works: Iterable[Work]) -> None:
        """Cancel *works*. Safe from any thread; they unwind later, on their own loop.

        A task can hold several works (a handler that tracks a part of itself). Cancelled once
        for each, it would stay cancelled after the first of them has unwound.
        """
        fresh = [work for work in works if not work.cancelled]
        for task in {work.task for work in fresh if work.task is not None}:
            # A closed loop: nothing will ever run there again.
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(self._cancel_task, task)
        for work in fresh:
            work.cancel()

    def _cancel_task(self, task: asyncio.Task[Any]) -> None:
        # The work may have ended since: then the task is about its owner's business, not ours.
        if any(work.task is task for work in self.works):
            task.cancel()


class Work:
    """One piece of work in flight, from `works.add` to `leave`."""

    __slots__ = ("_cancel_scope", "_in_flight", "began", "cancelled", "close_at", "task")

    kind: ClassVar[Kind] = "task"

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._cancel_scope: tuple[anyio.CancelScope, RunSoon] | None = None
        self.began = in_flight.clock()
        self.cancelled = False
        self.close_at = math.inf
        """When a drain is to end it: in the plan of `Endings`."""
        self.task: asyncio.Task[Any] | None
        try:
            self.task = asyncio.current_task()
        except RuntimeError:  # not on asyncio: trio, or a plain thread
            self.task = None

    @property
    def method(self) -> str:
        """The request's method; empty for other kinds of work."""
        return ""

    @property
    def path(self) -> str:
        """The request's path, or the name that tracked work was given."""
        return ""

    @property
    def route(self) -> str:
        """The route's path as the app declares it; empty where none is known."""
        return ""

    @property
    def client(self) -> str:
        """The client's address; empty where none is known."""
        return ""

    @property
    def sent(self) -> int | None:
        """Bytes of the response's body handed to the server; None where nobody counts them."""
        return None

    @property
    def progress(self) -> str:
        """How far the work has come, in a few words."""
        return "running"

    @property
    def cut(self) -> bool:
        """Whether ending here leaves a peer with a part of an answer."""
        return False

    @property
    def close_when(self) -> CloseWhen:
        """When a drain may end the work; that can change while it goes on."""
        return "never"

    async def close(self) -> None:
        """Give the work an end that its peer takes for one, if this is a moment for it."""

    @property
    def outcome(self) -> Outcome:
        """What the work came to, if it ends here."""
        if not self.cancelled:
            return "completed"
        return "aborted" if self.cut else "cancelled"

    def coroutine(self) -> Coroutine[Any, Any, Any] | None:
        """Return the coroutine of the task that does the work, if one is known."""
        coroutine = None if self.task is None else self.task.get_coro()
        return coroutine if isinstance(coroutine, Coroutine) else None

    def cancel_with(self, cancel_scope: anyio.CancelScope) -> None:
        """Have *cancel_scope* cancelled, where there is no task to cancel: outside of asyncio."""
        self._cancel_scope = cancel_scope, run_soon()
        if self.cancelled:
            cancel_scope.cancel()

    def cancel(self) -> None:
        """Count the work as cancelled, and cancel its scope if it has one. For the registry."""
        self.cancelled = True
        if self._cancel_scope is not None:
            cancel_scope, soon = self._cancel_scope
            with contextlib.suppress(RuntimeError):
                soon(cancel_scope.cancel)

    def uncancel(self) -> bool:
        """Take our own cancellation back after catching it; False if there is another one.

        Python 3.10 does not count cancellations; there, ours is taken for the only one.
        """
        if self.task is None or not hasattr(self.task, "uncancel"):
            return True
        return bool(self.task.uncancel() == 0)


class TrackedWork(Work):
    """Work that the app says it does: `with drainer.track("nightly export"):`."""

    __slots__ = ("_name",)

    def __init__(self, in_flight: InFlight, name: str) -> None:
        self._in_flight = in_flight
        self._name = name

    def __enter__(self) -> None:
        # Only now: what is made in one task may be entered in another.
        super().__init__(self._in_flight)
        if self.task is None and _in_event_loop():
            self.cancel_with(anyio.CancelScope().__enter__())
        self._in_flight.works.add(self)
        if self._in_flight.cancelled:  # it comes too late to be waited for
            self._in_flight.cancel()

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


@dataclass(slots=True)
class OutcomeCounts:
    """What became of the work in one drain."""

    completed: int = 0
    cancelled: int = 0
    aborted: int = 0
    rejected: int = 0
    stuck: dict[object, StuckWork] = field(default_factory=dict)
    """What was still in flight at its deadline."""

    def count(self, work: Work) -> None:
        """Count *work*, which has just ended."""
        setattr(self, work.outcome, getattr(self, work.outcome) + 1)

    def by_name(self) -> dict[Outcome, int]:
        """Return the counts by name, as `DrainReport` and `DrainStatistics` take them."""
        return {
            "completed": self.completed,
            "cancelled": self.cancelled,
            "aborted": self.aborted,
            "rejected": self.rejected,
        }

    @staticmethod
    def total(all_counts: Iterable[OutcomeCounts]) -> dict[Outcome, int]:
        """Return the sums of several counts, by name."""
        total = OutcomeCounts().by_name()
        for counts in all_counts:
            for name, count in counts.by_name().items():
                total[name] += count
        return total


def _in_event_loop() -> bool:
    try:
        anyio.get_current_task()
    except Exception:  # whichever error the installed anyio has for "no event loop here"
        return False
    return True
