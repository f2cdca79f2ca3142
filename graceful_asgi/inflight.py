"""The registry of work in flight: what has started and not finished. It never waits.

Entering and leaving are one context manager, so the count is right after any failure. Sets of
Python objects are added to, removed from and copied in one step under the GIL: no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import anyio

from .backend import Clock, running_asyncio_loop

if TYPE_CHECKING:
    from types import TracebackType

Kind = Literal["http", "websocket", "task", "lifespan"]


Outcome = Literal["completed", "cancelled", "aborted", "rejected"]


class InFlight:
    """What is in flight now. Safe to read from any thread and in a signal handler."""

    __slots__ = ("clock", "loop", "on_leave", "works")

    def __init__(self, clock: Clock) -> None:
        self.works: set[Work] = set()
        self.clock = clock
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that most work runs on, which spares each the question."""
        self.on_leave: Callable[[Work], object] | None = None
        """Told of work that ends. None while serving: then nobody asks, and nobody pays."""

    def __len__(self) -> int:
        return len(self.works)

    def __iter__(self) -> Iterator[Work]:
        return iter(tuple(self.works))

    def oldest(self) -> Work | None:
        """Return the work that has been in flight longest, if any is."""
        return min(self, key=lambda work: work.began, default=None)

    def cancel(self) -> None:
        """Cancel all work. Safe from any thread; it unwinds later, on its own loop."""
        tasks: set[asyncio.Task[Any] | None] = {None}
        for work in self:
            # A task can hold several works (a handler that tracks a part of itself). Cancelling
            # it once per work would leave it cancelled after the first of them has unwound.
            work.cancel(whole_task=work.task not in tasks)
            tasks.add(work.task)


class Work:
    """One piece of work in flight, from `with work:` to the end of the block."""

    __slots__ = ("_cancel_scope", "_in_flight", "began", "cancelled", "task")

    kind: ClassVar[Kind] = "task"

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._cancel_scope: anyio.CancelScope | None = None
        self.began = in_flight.clock()
        self.cancelled = False
        self.task: asyncio.Task[Any] | None
        try:
            self.task = asyncio.current_task(in_flight.loop)
        except RuntimeError:  # not on asyncio: trio, or a plain thread
            self.task = None

    def __enter__(self) -> None:
        self._in_flight.works.add(self)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        in_flight = self._in_flight
        in_flight.works.discard(self)
        if in_flight.on_leave is not None:
            in_flight.on_leave(self)
        return None

    @property
    def method(self) -> str:
        """The request's method; empty for other kinds of work."""
        return ""

    @property
    def path(self) -> str:
        """The request's path, or the name that tracked work was given."""
        return ""

    @property
    def progress(self) -> str:
        """How far the work has come, in a few words."""
        return "running"

    @property
    def cut(self) -> bool:
        """Whether ending here leaves a peer with a part of an answer."""
        return False

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
        """Have *cancel_scope* cancelled in place of the task: for work outside of asyncio."""
        self._cancel_scope = cancel_scope
        if self.cancelled:
            cancel_scope.cancel()

    def cancel(self, *, whole_task: bool = True) -> None:
        """Cancel the work. Idempotent; safe from any thread; work in a plain thread goes on."""
        if self.cancelled:
            return
        self.cancelled = True
        if self.task is not None and whole_task:
            self.task.get_loop().call_soon_threadsafe(self._cancel_task)
        elif self._cancel_scope is not None:
            self._cancel_scope.cancel()

    def _cancel_task(self) -> None:
        # It may have ended since: then the task is about its owner's business, not ours.
        if self.task is not None and self in self._in_flight.works:
            self.task.cancel()

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
        super().__init__(in_flight)
        self._name = name

    def __enter__(self) -> None:
        if running_asyncio_loop() is None and _in_trio():
            self._cancel_scope = anyio.CancelScope().__enter__()
        super().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        super().__exit__(exc_type, exc, traceback)
        if self._cancel_scope is not None:
            return self._cancel_scope.__exit__(exc_type, exc, traceback)
        return None

    @property
    def path(self) -> str:
        return self._name


def _in_trio() -> bool:
    try:
        anyio.get_current_task()
    except Exception:  # whichever error the installed anyio has for "no event loop here"
        return False
    return True
