"""Where code stands: what coroutines await, what threads run. It reads frames, and changes nothing.

Everything here is safe from any thread. Frames of this package are left out, those of libraries
are told in a word: "waiting in anyio/_backends" helps nobody at three in the morning.

Of a frame's variables only those are asked for anything whose type is known: an app's own may run
code for any attribute (a context's proxy raises, a remote object calls its server).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import linecache
import os
import sys
import sysconfig
import threading
from typing import TYPE_CHECKING, Any, Final

from ..report import ThreadStack
from .await_chain import await_chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType

_OWN: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # the whole package
_OWN_THREADS: Final = "graceful_asgi "
"""What their names begin with."""
_FROZEN: Final = "<frozen"


def where(coroutine: object) -> str:
    """Say where a coroutine waits: its innermost line outside of the libraries, if it has one."""
    return innermost(frames_of(coroutine))


def innermost(frames: Sequence[FrameType]) -> str:
    """Say which is the innermost line of *frames* that is the app's, or a library's if none is."""
    if not frames:
        return ""
    own = [frame for frame in frames if not _is_library(frame)]
    return _place((own or frames)[-1])


def frames_of(coroutine: object) -> list[FrameType]:
    """Return the frames from *coroutine* inwards, into the tasks that it waits for."""
    return _foreign(_into_tasks(coroutine, set()))


def _foreign(frames: Iterable[FrameType]) -> list[FrameType]:
    return [frame for frame in frames if not frame.f_code.co_filename.startswith(_OWN)]


def _into_tasks(coroutine: object, seen: set[object]) -> list[FrameType]:
    """Return the frames of *coroutine*, and of the task of its task group that leads to a line of
    the app (starlette's `BaseHTTPMiddleware` runs every endpoint in one)."""
    seen.add(coroutine)
    if getattr(coroutine, "cr_running", False):
        return _running_frames(coroutine)
    frames = list(await_chain(coroutine))
    for frame in reversed(frames):
        for task in _tasks_of(frame):
            if (inside := task.get_coro()) not in seen:
                inner = _into_tasks(inside, seen)
                if not all(map(_is_library, _foreign(inner))) or working_thread(inner):
                    return frames + inner
    return frames


def _tasks_of(frame: FrameType) -> list[asyncio.Task[object]]:
    """Return what runs in the task groups that *frame* holds: anyio's on asyncio, or asyncio's."""
    groups = [
        group
        for value in tuple(frame.f_locals.values())
        if type(value).__name__ == "TaskGroup"
        and isinstance(group := getattr(value, "_tasks", None), (set, frozenset))
    ]
    tasks = [task for group in groups for task in tuple(group) if isinstance(task, asyncio.Task)]
    return [task for task in tasks if not task.done()]


def _running_frames(coroutine: object) -> list[FrameType]:
    """Return the frames from *coroutine* inwards. One that runs (and blocks its loop) awaits
    nothing; what it does stands on the stack of its thread."""
    outermost = getattr(coroutine, "cr_frame", None)
    for current in sys._current_frames().values():
        stack = _stack(current)
        if outermost in stack:
            return stack[stack.index(outermost) :]
    return []


def _stack(innermost: FrameType | None) -> list[FrameType]:
    stack: list[FrameType] = []
    while innermost is not None:
        stack.append(innermost)
        innermost = innermost.f_back
    return stack[::-1]


# Threads


def working_thread(frames: Sequence[FrameType]) -> int | None:
    """Return the thread that does what a chain of *frames* waits for, where that can be told.

    anyio (and so starlette and FastAPI) keeps it in the frame that waits; asyncio's pool keeps what
    it calls in the thread.
    """
    for frame in reversed(frames):
        variables = frame.f_locals
        worker: Any = variables.get("worker")
        if issubclass(type(worker), threading.Thread):
            ident: int | None = worker.ident
            return ident
        call = variables.get("func_call")
        if call is not None:
            return next(
                (
                    ident
                    for ident, current in sys._current_frames().items()
                    if any(_calls(frame, call) for frame in _stack(current))
                ),
                None,
            )
    return None


def _calls(frame: FrameType, function: object) -> bool:
    item = frame.f_locals.get("self")
    return type(item).__name__ == "_WorkItem" and getattr(item, "fn", None) is function


def thread_frames(ident: int | None) -> list[FrameType]:
    """Return the frames of a thread, outermost first; none where there is no such thread."""
    return _foreign(_stack(sys._current_frames().get(ident))) if ident is not None else []


def thread_stacks() -> Iterator[ThreadStack]:
    """Yield what every thread does, but for the one that asks and this package's own."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main, own = threading.main_thread().ident, threading.get_ident()
    for ident, current in sys._current_frames().items():
        frames = _stack(current)
        name = "main thread" if ident == main else names.get(ident, f"thread {ident}")
        # Bare threads have no name, and the others begin in `threading`.
        is_own = name.startswith(_OWN_THREADS) or frames[0].f_code.co_filename.startswith(_OWN)
        if ident != own and not is_own:
            yield ThreadStack(name, tuple(compressed(frames, with_source=True)))


def thread_name(ident: int | None) -> str:
    """Return the name of a thread; empty where there is no such thread."""
    if ident is None:
        return ""
    return next((t.name for t in threading.enumerate() if t.ident == ident), "")


# In words


def compressed(frames: Iterable[FrameType], *, with_source: bool = False) -> Iterator[str]:
    """Yield a line for each frame of the app, and one for all of a library's between two of them.

    A stack without any of the app's ends with the line of the library that it is at.
    """
    frames = _foreign(frames)
    for library, group in itertools.groupby(frames, _is_library):
        members = list(group)
        if not library:
            yield from (_place(frame, with_source=with_source) for frame in members)
        elif members[-1] is frames[-1] and len(members) == len(frames):
            yield _place(members[-1], with_source=with_source)
        else:
            packages = dict.fromkeys(_package(frame) for frame in members)
            calls = "1 call" if len(members) == 1 else f"{len(members)} calls"
            yield f"({calls} in {', '.join(packages)})"


def _place(frame: FrameType, *, with_source: bool = False) -> str:
    code = frame.f_code
    place = f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
    source = linecache.getline(code.co_filename, frame.f_lineno).strip() if with_source else ""
    return f"{place}: {source}" if source else place


def _package(frame: FrameType) -> str:
    filename = frame.f_code.co_filename
    if filename.startswith(_FROZEN):  # "<frozen importlib._bootstrap>"
        return filename.removeprefix(_FROZEN).strip(" >").split(".")[0]
    for path in sorted(_library_paths(), key=len, reverse=True):
        if filename.startswith(path):
            return filename.removeprefix(path).split(os.sep)[0].removesuffix(".py") or "python"
    return "python"


def _is_library(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_library_paths())


@functools.cache
def _library_paths() -> tuple[str, ...]:
    installed = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return (*(os.path.join(path, "") for path in installed), _FROZEN)
