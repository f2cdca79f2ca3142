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
from collections.abc import Callable
from typing import TypeAlias

import anyio

RunSoon: TypeAlias = Callable[[Callable[[], object]], object]
Clock: TypeAlias = Callable[[], float]


def running_asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop the caller runs on (uvloop is one), or None outside of one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


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


class Listener:
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
