"""Coroutines that wait in all the ways there are, each at a line that a comment marks."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from typing import Any

import anyio
from support.polling import PATIENCE


def line_of(function: Any, marker: str = "here") -> str:
    """Return what the report says of the line of *function* that has *marker* in a comment."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = (n for n, line in enumerate(lines) if line.rstrip().endswith(f"# {marker}"))
    return f"{inspect.getsourcefile(function)}:{first + offset} in {function.__name__}"


def step(loop: asyncio.AbstractEventLoop, coroutine: Any) -> None:
    """Run *coroutine* up to its first wait."""
    asyncio._set_running_loop(loop)
    try:
        coroutine.send(None)
    finally:
        asyncio._set_running_loop(None)


async def waits_here() -> None:
    await asyncio.sleep(0)  # here


async def waits_in_a_library() -> None:
    await asyncio.Event().wait()  # here


async def waits_in_anyio() -> None:
    await anyio.sleep_forever()  # here


class Blocked:
    """A coroutine that blocks its thread, and with it the loop."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self._thread = 0

    async def handler(self) -> None:
        await self.calls_something_blocking()

    async def calls_something_blocking(self) -> None:
        self.blocks()

    def blocks(self) -> None:
        self._thread = threading.get_ident()
        self.release.wait(PATIENCE)  # here

    def is_inside(self) -> bool:
        """Return True once the thread waits. An event set just before would come too early."""
        frame = sys._current_frames().get(self._thread)
        return frame is not None and frame.f_code is threading.Condition.wait.__code__
