"""Finds what a process waits for at its end. Changes nothing. Safe from any thread."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ..text import printable
from .stacks import innermost, thread_frames, thread_stacks
from .trail import where

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from .stacks import ThreadStack

MOST = 20
"""The names of each kind in a report, at the most. Nobody reads a thousand."""


class ExitReport(NamedTuple):
    """The threads, tasks and processes that keep a process from its exit."""

    waits_for: tuple[str, ...]
    """Each thread, task, child process and `atexit` function, by its name and place."""
    threads: tuple[ThreadStack, ...]

    def __str__(self) -> str:
        return ", ".join(map(printable, self.waits_for)) or "nothing that shows"

    def lines(self) -> Iterator[str]:
        """Yield the stacks as lines for a terminal."""
        for thread in self.threads:
            yield f"  {printable(thread.name)}"
            yield from (f"    {printable(line)}" for line in thread.lines)


def look_at_exit(loop: asyncio.AbstractEventLoop | None) -> ExitReport:
    """Return what keeps the process alive. *loop* is the loop that the server ran in."""
    main = threading.main_thread()
    stack = thread_frames(main.ident)
    waits_for = [
        *_tasks(loop),
        *_threads(),
        *_children(),
        *([] if main.is_alive() else _atexit_function(stack)),
    ]
    if not waits_for and (place := innermost(stack)):
        waits_for = [f"the main thread at {place}"]
    return ExitReport(waits_for=tuple(waits_for), threads=tuple(thread_stacks()))


def _tasks(loop: asyncio.AbstractEventLoop | None) -> Iterator[str]:
    """Name the tasks of a loop that still runs."""
    if loop is None or loop.is_closed():
        return
    tasks = [each for each in asyncio.all_tasks(loop) if not _is_loops_own(each)]
    for task in tasks[:MOST]:
        place = where(task.get_coro())
        yield f"task {task.get_name()}" + (f" at {place}" if place else "")


def _is_loops_own(task: asyncio.Task[Any]) -> bool:
    """Return True for a task of `asyncio.run` that waits for something which the report names."""
    name = getattr(task.get_coro(), "__name__", "")
    return name in ("shutdown_asyncgens", "shutdown_default_executor")


def _threads() -> Iterator[str]:
    """Name the threads that the interpreter joins, except those that only wait for others."""
    own = (threading.main_thread(), threading.current_thread())
    threads = [each for each in threading.enumerate() if not each.daemon and each not in own]
    busy = [(each, thread_frames(each.ident)) for each in threads]
    for thread, frames in [each for each in busy if not _is_idle(each[1])][:MOST]:
        place = innermost(frames)
        yield f"thread {thread.name}" + (f" at {place}" if place else "")


def _is_idle(frames: list[FrameType]) -> bool:
    """Return True for a worker of a `ThreadPoolExecutor` that waits for work, and for the thread in
    which a loop waits for its executor."""
    names = [frame.f_code.co_name for frame in frames]
    return names[-1:] == ["_worker"] or "_do_shutdown" in names


def _children() -> Iterator[str]:
    """Name the children that multiprocessing joins.

    They are read where multiprocessing keeps them: `active_children` and `exitcode` would reap a
    child in the place of the thread that waits for it.
    """
    children: set[Any] = getattr(sys.modules.get("multiprocessing.process"), "_children", set())
    for child in tuple(children)[:MOST]:
        if getattr(child._popen, "returncode", 0) is None:
            yield f"child process {child.name} (pid {child.pid})"


def _atexit_function(stack: list[FrameType]) -> Iterator[str]:
    """Name the function that runs in the main thread after its end, unless that joins threads."""
    if stack and stack[0].f_code.co_name not in ("_shutdown", "_exit_function"):
        code = stack[0].f_code
        yield f"atexit function {code.co_name} ({code.co_filename}:{stack[0].f_lineno})"
