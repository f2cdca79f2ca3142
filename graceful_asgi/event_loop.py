"""What asyncio and trio do differently, as far as this package can tell. Nothing else here.

anyio covers the waiting. It does not cover these: having a function run by the loop from a
signal handler, a clock that a test may drive, and cancelling the caller without paying for a
cancel scope on every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import types
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Generator

RunSoon: TypeAlias = Callable[[Callable[[], object]], object]
Clock: TypeAlias = Callable[[], float]
T = TypeVar("T")
R = TypeVar("R")


def running_asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop the caller runs on (uvloop is one), or None outside of one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def in_event_loop() -> bool:
    """Return whether the caller runs in an event loop, asyncio's or trio's."""
    if running_asyncio_loop() is not None:
        return True
    trio = sys.modules.get("trio")
    with contextlib.suppress(RuntimeError, AttributeError):  # not in a trio run either
        trio.lowlevel.current_clock()  # type: ignore[union-attr]
        return True
    return False


def run_soon() -> RunSoon:
    """Return how to have the running loop call a function, from any thread or signal handler.

    Both natives are documented for that: `loop.call_soon_threadsafe` and trio's
    `TrioToken.run_sync_soon`. `anyio.from_thread` is not: it waits for the answer.
    """
    loop = running_asyncio_loop()
    if loop is not None:
        return loop.call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon


async def run_blocking(function: Callable[[T], R], argument: T) -> R:
    """Return what *function* returns. It may block: it is called in a thread, if there is one."""
    has_thread = False

    def call() -> R:
        nonlocal has_thread
        has_thread = True
        return function(argument)

    try:
        return await anyio.to_thread.run_sync(call)
    except RuntimeError:
        if has_thread:
            raise
    return function(argument)  # the process has as many threads as it may have


def spawn(run: Callable[[], Awaitable[Any]]) -> object:
    """Have *run* called and awaited beside everything else on the running loop.

    Returns what has to be kept while it runs; None outside of a loop, where nothing runs. *run*
    must not raise: nobody would hear of it.
    """
    loop = running_asyncio_loop()
    if loop is not None:
        return asyncio.ensure_future(run(), loop=loop)
    trio = sys.modules.get("trio")
    with contextlib.suppress(RuntimeError, AttributeError):  # not in a trio run either
        task: object = trio.lowlevel.spawn_system_task(run)  # type: ignore[union-attr]
        return task
    return None


def running_clock() -> Clock:
    """Return the clock of the running loop, or the monotonic clock outside of one.

    asyncio and uvloop count monotonic time as well. trio's clock has an offset of its own, and
    may be a mock that runs a 30 s drain in milliseconds. Callable from any thread.
    """
    trio = sys.modules.get("trio")
    if running_asyncio_loop() is None and trio is not None:
        with contextlib.suppress(RuntimeError):  # not in a trio run either
            clock: Clock = trio.lowlevel.current_clock().current_time
            return clock
    return time.monotonic


class Wakeup:
    """One task's ear on events that come from anywhere: other threads, signal handlers.

    Register first, look at the state second, wait last: then nothing that happens between two
    looks is missed.
    """

    __slots__ = ("_event", "_run_soon")

    def __init__(self) -> None:
        self._run_soon = run_soon()
        self._event = anyio.Event()

    def wake(self) -> None:
        """Wake the listening task. Idempotent; safe from any thread and in a signal handler."""
        # The loop is closed, or trio's run is over: nobody is listening any more.
        with contextlib.suppress(RuntimeError):
            self._run_soon(self._set)

    def _set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait until woken, for *seconds* at the most."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self._event = anyio.Event()


class Interrupted(Exception):
    """Somebody has interrupted the wait."""


class Interruptible:
    """One wait, which somebody else on the loop may interrupt, and only while it really waits.

    What has come already is never lost by it: an interruption that is too late does nothing. A
    cancel scope has that too, at ten times the cost on asyncio. So there the future is cancelled
    that the task waits on, and not the task: whoever awaits the wait sees no cancellation.
    """

    __slots__ = ("_asked", "_blocked_on", "_interrupted", "waiting")

    def __init__(self) -> None:
        self.waiting = False
        self._blocked_on: object = None
        self._asked = self._interrupted = False

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Wait for *awaitable*.

        Raises:
            Interrupted: it was interrupted, and *awaitable* has lost nothing.
        """
        self.waiting = True
        try:
            if (task := current_task()) is not None:
                return await self._watch(awaitable, task)
            with anyio.CancelScope() as self._blocked_on:
                return await awaitable
            raise Interrupted
        finally:
            self.waiting = False
            self._blocked_on = None

    def interrupt(self) -> None:
        """End a wait that is under way. Idempotent; on the event loop."""
        self._asked = self.waiting
        if isinstance(self._blocked_on, (asyncio.Future, anyio.CancelScope)):
            self._interrupted = bool(self._blocked_on.cancel()) or self._interrupted

    @types.coroutine
    def _watch(self, awaitable: Awaitable[T], task: asyncio.Task[Any]) -> Generator[Any, Any, T]:
        """Await *awaitable* as `yield from` does, with an eye on what it is blocked on."""
        steps = awaitable.__await__()
        error: BaseException | None = None
        cancellations = _cancellations(task)
        try:
            while True:
                self._blocked_on = next(steps) if error is None else steps.throw(error)
                error = None
                if self._asked:  # between two things that it was blocked on
                    self.interrupt()
                try:
                    yield self._blocked_on
                except BaseException as exc:
                    error = exc
        except StopIteration as stop:
            value: T = stop.value
            return value
        except asyncio.CancelledError:
            if not self._interrupted or _cancellations(task) > cancellations:
                raise
            raise Interrupted from None


def current_task() -> asyncio.Task[Any] | None:
    """Return the asyncio task that the caller runs in, or None where there is none."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _cancellations(task: asyncio.Task[Any]) -> int:
    """Return how often *task* has been asked to end. Python 3.10 does not count."""
    cancelling = getattr(task, "cancelling", None)
    return 0 if cancelling is None else cancelling()
