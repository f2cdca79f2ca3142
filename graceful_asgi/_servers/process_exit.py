"""`ProcessExit`: ends the process after its servers have drained, and logs what keeps it alive."""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import signal
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, Final

from .. import log
from .._diagnostics.exit_report import look_at_exit
from .._diagnostics.stacks import stack_of
from ..event_loop import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from .._diagnostics.watchdog import Watchdog

LINGER_PERIOD: Final = 1.0
"""Seconds after which the log names what the process waits for."""

REACTION_PERIOD: Final = 0.5
"""Seconds for a program to react to the end of `serve()`."""


class ProcessExit:
    """The last part of a process: from the end of its drains to its own end.

    Args:
        watchdog: is armed with what is left of the cleanup period.
        clean: True if all drains were clean.
        again: True if the process has begun to end before, and has started another server.
    """

    def __init__(self, watchdog: Watchdog, *, clean: bool, again: bool = False) -> None:
        self.clean = clean
        self.again = again
        self.begun = False
        """True once a `serve()` has come to its end."""
        self.is_left_to_program = False
        self._watchdog = watchdog
        self._drained_at = self._lingers_since = monotonic()
        self._allowance = watchdog.seconds_left()
        self._has_reported = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[Any] | None = None

    def begin(self, *, left_to_program: bool) -> None:
        """Note that `serve()` is about to end. Call it in the task that `serve()` runs in.

        Args:
            left_to_program: True after a Ctrl+C that becomes a KeyboardInterrupt. The program may
                go on then for as long as it likes, as it may on plain uvicorn.
        """
        self.begun = True
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        self._main_task, is_known = main_task(task)
        # An exit that is raised in a task stops the loop at once. The code that awaits the task may
        # never run again, and asyncio would print the exception as "never retrieved".
        if task is not None:
            task.add_done_callback(_retrieve)
        # A worker has no program of its own: its parent waits for it.
        self.is_left_to_program = left_to_program and multiprocessing.parent_process() is None
        if self.is_left_to_program:
            return
        _ignore_sigterm()
        if self.clean and not left_to_program and is_known and self._main_task is not task:
            # asyncio's name for what a task waits for. The same one later: it has not reacted.
            waiter = getattr(self._main_task, "_fut_waiter", None)
            self._loop.call_later(REACTION_PERIOD, self._end_program, waiter)

    def _end_program(self, waiter: object) -> None:
        """End a program that goes on after `serve()` as if nothing had happened.

        `gather(serve(), bot())` waits for the bot, for ever. On plain uvicorn SIGTERM would have
        ended it. Raised here and not in a task, `SystemExit` leaves the loop, and `asyncio.run`
        cancels every task.
        """
        main = self._main_task
        if main is None or not (main.done() or getattr(main, "_fut_waiter", None) is not waiter):
            raise SystemExit(0)

    # In the watchdog's thread

    def look(self) -> None:
        """Log what the process waits for, once it has waited for a second."""
        if self.is_left_to_program:
            if self._program_runs():
                self._lingers_since = monotonic()
                if self._watchdog.armed:  # each call wakes the watchdog's threads
                    self._watchdog.disarm()
                return
            if not self._watchdog.armed:
                self._watchdog.arm(self._allowance)
        lingers_for = monotonic() - self._lingers_since
        if lingers_for >= LINGER_PERIOD and not self._has_reported:
            self._has_reported = True
            report = look_at_exit(self._loop)
            log.lingering(
                str(report), report.lines(), seconds=lingers_for, left=self._watchdog.seconds_left()
            )

    def log_final_report(self) -> None:
        """Log what the process has waited for until its hard deadline."""
        report, seconds = look_at_exit(self._loop), monotonic() - self._drained_at
        log.exit_overdue(str(report), report.lines(), seconds=seconds)

    def _program_runs(self) -> bool:
        """Return True while the program's own code goes on; False while Python cleans up after it.

        Python cleans up after the main task of `asyncio.run` (it cancels tasks, joins executors),
        and after the main thread (it joins threads, and calls what `atexit` knows).
        """
        main, loop = self._main_task, self._loop
        if main is not None and main.done() and loop is not None and not loop.is_closed():
            return False
        return threading.main_thread().is_alive()


def main_task(task: asyncio.Task[Any] | None) -> tuple[asyncio.Task[Any] | None, bool]:
    """Return the task that the caller of the event loop waits for, and whether that is certain.

    None if the loop runs for ever. It is not certain if the loop is not Python code (uvloop without
    a `Runner`). *task* is the running task. Its caller is further out on the stack, where a local
    variable has the argument of `run_until_complete` or `Runner.run`.
    """
    tasks = asyncio.all_tasks()
    coroutines = {id(coroutine): each for each in tasks for coroutine in _coroutines_of(each)}
    stack = stack_of(sys._getframe())
    outermost = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    if outermost is not None:
        stack = stack[: stack.index(outermost)] if outermost in stack else []
    runs_for_ever = False
    for frame in reversed(stack):
        for value in tuple(frame.f_locals.values()):
            found = value if isinstance(value, asyncio.Task) else coroutines.get(id(value))
            if found in tasks:
                return found, True
        runs_for_ever = runs_for_ever or frame.f_code.co_name == "run_forever"
    return None, runs_for_ever


def _coroutines_of(task: asyncio.Task[Any]) -> Iterator[object]:
    """Yield the coroutine of a task, and those that it awaits: a loop may wrap the coroutine that
    it was given in one of its own."""
    coroutine: object = task.get_coro()
    while isinstance(coroutine, types.CoroutineType):
        yield coroutine
        coroutine = coroutine.cr_await


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _ignore_sigterm() -> None:
    """Ignore further SIGTERMs in a process that is ending: gunicorn repeats them every second.

    A handler that does nothing, and not SIG_IGN, which processes that the program starts now would
    inherit. Python takes handlers away as it finalizes; from then on it is SIG_IGN.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _do_nothing)
        atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """Handle SIGTERM in a process that is ending."""


def is_default(handler: object) -> bool:
    """Return True if the program leaves SIGTERM to the system: it has no handler of its own."""
    return handler is signal.SIG_DFL or handler is _do_nothing


def shut_pools_down_first() -> None:
    """Make a worker shut its process pools down before its children are joined.

    At its end a process that multiprocessing started joins its own children first and its threads
    second; the interpreter does it the other way round. The processes of a `ProcessPoolExecutor`
    wait for one of those threads, so such a worker would never end.
    """
    module = sys.modules.get("concurrent.futures.process")
    if module is not None and multiprocessing.parent_process() is not None:
        from multiprocessing.util import Finalize

        # multiprocessing's `_exit_function` calls what has a priority of 0 or more before it joins
        # children. `_python_exit` ends all pools; Python calls it as it joins threads, too late.
        Finalize(None, module._python_exit, exitpriority=100)
