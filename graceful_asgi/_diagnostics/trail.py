"""Follows what a piece of work waits for, through the tasks and threads that it has started.

A framework rarely runs an endpoint in the task of its request: starlette's `BaseHTTPMiddleware` has
a task group, Django and Quart call `asyncio.wait`, a plain function runs in a thread. The line of
the app, which the reader of the stuck report needs, is there.

Everything here is safe from any thread. It reads the local variables of libraries only, and
attributes only of objects whose type is known: an attribute of an app's object may run any code.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import threading
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .await_chain import await_chain
from .stacks import innermost, is_library, stack_of, without_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

_ASYNCIO: Final = os.path.join(os.path.dirname(asyncio.__file__), "")


class Trail(NamedTuple):
    """The frames of a piece of work, through all the tasks and threads that it waits for."""

    frames: tuple[FrameType, ...] = ()
    """The frames, outermost first, without this package's own."""
    thread: int | None = None
    """The id of the last thread that the frames lead into; None if there is none."""


def trail_of(coroutine: object) -> Trail:
    """Return the frames from *coroutine* inwards, into what it waits for.

    If it waits for several tasks, the first that leads to a line of the app is followed. Tasks that
    wait for each other form a circle: each is followed once.
    """
    frames, thread = _Follower().follow(coroutine)
    return Trail(tuple(without_own(frames)), thread)


def where(coroutine: object) -> str:
    """Return the line that a coroutine waits at: the app's innermost, or else a library's."""
    return innermost(trail_of(coroutine).frames)


def frames_of(coroutine: object) -> list[FrameType]:
    """Return the frames of `trail_of`, with those of this package."""
    return _Follower().follow(coroutine)[0]


class _Follower:
    """Follows work, and remembers the tasks and futures that it has seen."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def follow(self, lead: Any) -> tuple[list[FrameType], int | None]:
        """Return the frames of a coroutine, or those of the thread that works for a future."""
        if id(lead) in self._seen:
            return [], None
        self._seen.add(id(lead))
        thread: int | None = None
        future: asyncio.Future[Any] | None = None
        if issubclass(type(lead), concurrent.futures.Future):
            frames, thread = _thread_of(lead)
        elif issubclass(type(lead), threading.Thread):
            thread = lead.ident
            frames = stack_of(sys._current_frames().get(thread or 0))
        elif getattr(lead, "cr_running", False) is True:
            frames = _running_frames(lead)
        else:
            frames, future = await_chain(lead)
        inner, inner_thread = self._further(frames, future)
        return frames + inner, thread if inner_thread is None else inner_thread

    def _further(
        self, frames: list[FrameType], future: asyncio.Future[Any] | None
    ) -> tuple[list[FrameType], int | None]:
        awaited = list(_leads_of_future(future))
        if len(awaited) == 1:
            return self.follow(awaited[0])
        for lead in awaited or _leads_of_frames(frames):
            inner, thread = self.follow(lead)
            if thread is not None or not all(map(is_library, without_own(inner))):
                return inner, thread
        return [], None


# What a future waits for


def _leads_of_future(future: Any) -> Iterator[object]:
    """Yield the coroutines, and the futures of threads, that *future* waits for.

    A task has a coroutine, and a `gather` its children. The others name what they wait for in a
    callback: `shield`, and each of a pair of futures that asyncio has chained (`wrap_future`, and
    so `run_in_executor` and `to_thread`; `run_coroutine_threadsafe`).
    """
    kind = type(future)
    if issubclass(kind, asyncio.Task):
        if not future.done():
            yield future.get_coro()
    elif issubclass(kind, asyncio.Future):
        for inner in (*getattr(future, "_children", ()), *_chained(future, "_callbacks")):
            yield from _leads_of_future(inner)
    elif issubclass(kind, concurrent.futures.Future):
        source = _chained(future, "_done_callbacks")
        if not source:  # a thread's
            yield future
        for inner in source:
            yield from _leads_of_future(inner)


def _chained(future: object, callbacks: str) -> list[object]:
    """Return the futures whose result goes to *future*, by the callbacks that cancel them."""
    found = []
    for callback in getattr(future, callbacks, None) or ():
        function = callback[0] if type(callback) is tuple else callback
        if type(function) is not FunctionType or function.__closure__ is None:
            continue
        code = function.__code__
        if not code.co_filename.startswith(_ASYNCIO):
            continue
        for name, cell in zip(code.co_freevars, function.__closure__, strict=True):
            wanted = {"_call_check_cancel": "source", "_outer_done_callback": "inner"}
            if wanted.get(code.co_name) == name:
                found.append(cell.cell_contents)
    return found


# What the libraries at the end of a chain wait for


def _leads_of_frames(frames: list[FrameType]) -> Iterator[object]:
    """Yield what the innermost frames wait for, up to the first line of the app.

    In a library a plain future or a lock is between the task that waits and the task that works. So
    the library's local variables have to show it.
    """
    for frame in reversed(frames):
        if not is_library(frame) and without_own([frame]):
            return
        variables = frame.f_locals
        for future in _futures_in(frame, variables):
            yield from _leads_of_future(future)
        for value in tuple(variables.values()):
            if type(value).__name__ == "TaskGroup":  # asyncio's, and anyio's on asyncio
                for task in _in_order(getattr(value, "_tasks", ())):
                    yield from _leads_of_future(task)
            elif type(value).__name__ == "WorkerThread":  # anyio's
                yield value
        awaitable = variables.get("awaitable")
        if type(variables.get("self")).__name__ == "AsyncToSync" and (
            type(awaitable) is CoroutineType
        ):
            yield awaitable


def _futures_in(frame: FrameType, variables: Any) -> Iterable[object]:
    """Return the futures that a function of the standard library waits for."""
    itself = variables.get("self")
    if frame.f_code.co_filename.startswith(_ASYNCIO):
        match frame.f_code.co_name:
            case "_wait":
                return _in_order(variables.get("fs"))
            case "wait_for":  # before Python 3.12
                return (variables.get("fut"),)
            case "_wait_for_one":  # of `as_completed`, from Python 3.13 on
                return _in_order(getattr(itself, "_todo", ()))
            case "run_until_complete":  # in a thread
                return (variables.get("future"),)
    elif frame.f_code is concurrent.futures.Future.result.__code__:
        return (itself,)
    return ()


def _in_order(futures: Any) -> list[object]:
    """Return the set *futures* as a list, with tasks in the order in which they were made.

    The order shows in their names: "Task-9" comes before "Task-10".
    """

    def age(future: Any) -> tuple[int, str]:
        name = future.get_name() if issubclass(type(future), asyncio.Task) else ""
        return len(name), name

    return sorted(tuple(futures or ()), key=age)


# Threads


def _thread_of(future: object) -> tuple[list[FrameType], int | None]:
    """Return the frames of the pool thread that works for *future*, and the thread's id.

    In the pools of the standard library and of asgiref the thread runs an item of work, which has
    the future.
    """
    for ident, current in sys._current_frames().items():
        stack = stack_of(current)
        for depth, frame in enumerate(stack):
            item = frame.f_locals.get("self") if frame.f_code.co_name == "run" else None
            if type(item).__name__ == "_WorkItem" and getattr(item, "future", None) is future:
                return stack[depth:], ident
    return [], None


def _running_frames(coroutine: object) -> list[FrameType]:
    """Return the frames from *coroutine* inwards, for a coroutine that runs and blocks its loop. It
    awaits nothing: its frames are on the stack of its thread."""
    outermost = getattr(coroutine, "cr_frame", None)
    for current in sys._current_frames().values():
        stack = stack_of(current)
        if outermost in stack:
            return stack[stack.index(outermost) :]
    return []
