"""Covers what asyncio and trio do differently and anyio leaves open.

That is: making the loop run a function from a signal handler, a clock that a test may drive, and
sharing the loop with others during long work.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import functools
import math
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

RunSoon: TypeAlias = Callable[[Callable[[], object]], object]
Clock: TypeAlias = Callable[[], float]
T = TypeVar("T")
R = TypeVar("R")

# Fake clocks of tests (freezegun) replace `time.monotonic` in every module, and leave the loop its
# own clock. A stop must not wait for a clock that stands still, or that jumps as the test ends. So
# this asks the system for what `time.monotonic` reads.
monotonic: Clock
if sys.platform == "win32":
    monotonic = time.monotonic
elif sys.platform == "darwin":
    monotonic = functools.partial(time.clock_gettime, time.CLOCK_UPTIME_RAW)
else:
    monotonic = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)

SLICE: Final = 50
"""The pieces of work to handle in one turn of the loop. Each takes some 0.3 ms with a
framework and its answer, so a turn takes some 15 ms, and other tasks do not wait for long."""

LOOKS: Final = 500
"""The same for a mere look at each, which takes some 10 us."""


def running_asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop the caller runs on (uvloop is one), or None outside of one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def import_for_waiting() -> None:
    """Import now what a task needs to wait. Call it in an event loop.

    anyio imports its modules when they are first used. That might be during a stop, when the
    process may have no descriptor left to read a file.
    """
    anyio.Event()
    anyio.CancelScope()
    anyio.create_task_group()


def running_trio() -> Any:
    """Return `trio.lowlevel` if the caller is in a trio run; otherwise None. Imports nothing."""
    trio: Any = sys.modules.get("trio")
    with contextlib.suppress(RuntimeError, AttributeError):
        trio.lowlevel.current_clock()
        return trio.lowlevel
    return None


def in_event_loop() -> bool:
    """Return True if the caller runs in an event loop, asyncio's or trio's."""
    return running_asyncio_loop() is not None or running_trio() is not None


def run_soon() -> RunSoon:
    """Return a function by which any thread or signal handler can run a call on this loop.

    `loop.call_soon_threadsafe` and trio's `TrioToken.run_sync_soon` are documented for that.
    `anyio.from_thread` is not: it waits for the answer.
    """
    loop = running_asyncio_loop()
    if loop is not None:
        return loop.call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon


async def run_blocking(function: Callable[[T], R], argument: T) -> R:
    """Call *function*, which may block, in a thread if one can be had; return its result.

    The thread ends with the call. One of anyio's would stay: from Python 3.12 on a fork in a
    process with more than one thread emits a DeprecationWarning.
    """
    wakeup, outcome = Wakeup(), Future[R]()

    def run() -> None:
        try:
            outcome.set_result(function(argument))
        except BaseException as error:
            outcome.set_exception(error)
        wakeup.wake()

    try:
        _thread.start_new_thread(contextvars.copy_context().run, (run,))
    except RuntimeError:
        return function(argument)  # no thread can be started: block the loop
    with anyio.CancelScope(shield=True):
        while not outcome.done():
            await wakeup.wait(math.inf)
    return outcome.result()


def spawn(run: Callable[[], Awaitable[Any]]) -> object:
    """Run *run* in a task of its own on the running loop.

    Return the task, which the caller has to keep while it runs. Return None outside of a loop,
    where nothing runs. *run* must not raise: nobody would see the error.
    """
    loop = running_asyncio_loop()
    if loop is not None:
        return asyncio.ensure_future(run(), loop=loop)
    trio = running_trio()
    return None if trio is None else trio.spawn_system_task(run)


def running_clock() -> Clock:
    """Return the clock of the running loop, or the monotonic clock outside of one.

    asyncio and uvloop count monotonic time as well. trio's clock has an offset of its own, and
    may be a mock that runs a 30 s drain in milliseconds. Callable from any thread.
    """
    if running_asyncio_loop() is None and (trio := running_trio()) is not None:
        clock: Clock = trio.current_clock().current_time
        return clock
    return monotonic


class Wakeup:
    """Wakes one task when something has happened in another thread or in a signal handler.

    Register first, look at the state second, wait last: then no change between two looks is missed.
    """

    __slots__ = ("_event", "_run_soon")

    def __init__(self) -> None:
        self._run_soon = run_soon()
        self._event = anyio.Event()

    def wake(self) -> None:
        """Wake the listening task. Idempotent; safe from any thread and in a signal handler."""
        # The loop is closed, or trio's run is over: no task waits any more.
        with contextlib.suppress(RuntimeError):
            self._run_soon(lambda: self._event.set())

    async def wait(self, seconds: float) -> None:
        """Wait until woken, for *seconds* at the most."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self._event = anyio.Event()


if sys.version_info >= (3, 12):
    running_task = asyncio.current_task
else:
    _running = threading.local()
    _tasks: dict[Any, asyncio.Task[Any]]
    # The dictionary that `asyncio.current_task` looks in: no type stub names it.
    _tasks = asyncio.tasks._current_tasks  # type: ignore[attr-defined,unused-ignore]

    def running_task() -> asyncio.Task[Any] | None:
        """Return the asyncio task that the caller runs in; raise RuntimeError outside of a loop.

        To find the running loop, these versions of Python ask the system for the process id each
        time. So the last loop of each thread is kept. Once another loop runs in the thread, the
        kept one runs no task. `_current_tasks` is what `asyncio.current_task` looks into; these
        versions get no changes any more but for security.
        """
        try:
            return _tasks[_running.loop]
        except (AttributeError, KeyError):  # no loop is kept yet, or another one runs
            return _running_anew()

    def _running_anew() -> asyncio.Task[Any] | None:
        _running.loop = loop = asyncio.get_running_loop()
        return asyncio.current_task(loop)


def current_task() -> asyncio.Task[Any] | None:
    """Return the asyncio task that the caller runs in, or None if there is none."""
    try:
        return running_task()
    except RuntimeError:
        return None


async def in_slices(items: Iterable[T], size: int = SLICE) -> AsyncIterator[T]:
    """Yield *items*, and let everything else on the loop run after each *size* of them."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % size == 0:
            await anyio.lowlevel.checkpoint()
