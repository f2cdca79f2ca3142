"""What a coroutine awaits, and what that awaits in turn. It looks, and knows nothing of threads."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def await_chain(awaitable: object) -> Iterator[FrameType]:
    """Yield the frames of what a coroutine awaits, outermost first.

    Coroutines, generators and async generators name what they await under different names. What
    has none of them (a future) ends the chain, and a task leads on into its coroutine. Tasks that
    wait for each other, for ever, are a circle: it ends where it would come round.
    """
    seen: set[FrameType] = set()
    while awaitable is not None:
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
                if frame in seen:
                    return
                seen.add(frame)
                yield frame
                inner = "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await"
                awaitable = getattr(awaitable, inner)
                break
        else:
            awaitable = _wrapped(awaitable)


_WRAPPERS: Final = frozenset(
    ("async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper")
)


def _wrapped(awaitable: object) -> object:
    """Return what one of the interpreter's own wrappers awaits; they show it to nobody else."""
    if _is_wrapper(awaitable):
        for referent in gc.get_referents(awaitable):
            if isinstance(referent, (Coroutine, AsyncGenerator)) or _is_wrapper(referent):
                return referent
    elif type(awaitable).__name__ == "FutureIter":
        for referent in gc.get_referents(awaitable):
            if isinstance(referent, asyncio.Future):  # its type is one of them, from 3.13 on
                return _coroutine_of(referent)
    return None


def _coroutine_of(future: object) -> object:
    """Return the coroutine that *future* waits for: a task's, or the first of a `gather`."""
    if isinstance(future, asyncio.Task):
        return future.get_coro()
    children = getattr(future, "_children", ())
    return next((_coroutine_of(child) for child in children if not child.done()), None)


def _is_wrapper(thing: object) -> bool:
    return type(thing).__name__ in _WRAPPERS
