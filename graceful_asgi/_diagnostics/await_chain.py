"""Reads what a coroutine awaits, and what that awaits in turn, within one task. Changes nothing.

`trail` goes on where a chain ends: in other tasks and threads.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

    Chain = tuple[list[FrameType], "asyncio.Future[Any] | None"]

_PREFIXES: Final = ("cr", "gi", "ag")
"""Coroutines, generators and async generators name the same things differently."""
_WRAPPERS: Final = frozenset(
    ("async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper")
)


def await_chain(awaitable: object) -> Chain:
    """Return the frames of what a coroutine awaits, outermost first, and the future it ends at.

    The future is None if the coroutine runs, has ended, has not begun, or waits for something other
    than an asyncio future.
    """
    frames: list[FrameType] = []
    while awaitable is not None:
        prefix = _prefix(awaitable)
        if prefix is None:
            if (future := _future(awaitable)) is not None:
                return frames, future
            awaitable = _wrapped(awaitable)
            continue
        frame = getattr(awaitable, f"{prefix}_frame")
        if frame is None or frame in frames:
            break
        frames.append(frame)
        awaitable = getattr(awaitable, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
    return frames, None


def _prefix(awaitable: object) -> str | None:
    # Look at the type only: an attribute of an app's own object may run any code.
    return next((each for each in _PREFIXES if hasattr(type(awaitable), f"{each}_frame")), None)


def _future(awaitable: object) -> asyncio.Future[Any] | None:
    """Return the future that belongs to one of asyncio's future iterators."""
    if type(awaitable).__name__ == "FutureIter":
        for referent in gc.get_referents(awaitable):
            if issubclass(type(referent), asyncio.Future):
                future: asyncio.Future[Any] = referent
                return future
    return None


def _wrapped(awaitable: object) -> object:
    """Return what an interpreter's own wrapper awaits, which only the garbage collector shows."""
    if _is_wrapper(awaitable):
        for referent in gc.get_referents(awaitable):
            if issubclass(type(referent), (Coroutine, AsyncGenerator)) or _is_wrapper(referent):
                return referent
    return None


def _is_wrapper(thing: object) -> bool:
    return type(thing).__name__ in _WRAPPERS
