"""`BareThread` and `JobThread`: threads that are not there while the process forks.

The threads of this package only wait, for a deadline or for a record to write. Still, from Python
3.12 on each fork in a process with more than one thread emits a DeprecationWarning: a lock that
another thread holds at the fork stays locked in the child. A program without threads of its own
must not get that warning because of this package. So the threads end before each fork, and start
again in the parent (`os.register_at_fork`).
"""

from __future__ import annotations

import _thread
import contextlib
import math
import os
import queue
import select
import sys
import threading
from typing import TYPE_CHECKING, Final, Protocol

from .event_loop import monotonic, running_asyncio_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

END_PERIOD: Final = 0.5
"""Seconds that a fork waits for the threads to end: they may be writing to a log that blocks."""

COUNTS_LATE: Final = (3, 12) <= sys.version_info < (3, 14, 1)
"""True if the interpreter counts the threads after its `after_in_parent` functions: python/cpython,
issue 137109. Then the threads start again at the next turn of the event loop, or when one of them
is needed."""

_LOOK_PERIOD: Final = 0.0001
"""Seconds between two looks at the threads that a fork waits for. Short, because a thread that only
waits ends at once; and its end in the kernel wakes nobody."""


class ForkParticipant(Protocol):
    """Something that must not run while the process forks. Nothing here raises."""

    def pause(self) -> None:
        """End soon, until `resume`. In the thread that forks."""

    def has_paused(self) -> bool:
        """Return True once it has ended."""

    def cannot_wait(self) -> bool:
        """Return True if it has to be resumed at once: the event loop may block now."""

    def resume(self) -> None:
        """Go on, in the parent. Called once after each `pause`."""

    def forget(self) -> object:
        """Note that this is the child, where it is not, and is not resumed."""


class BareThread:
    """A thread that is not there while the process forks.

    Every method is safe from any thread and in a signal handler, because none takes a lock.
    `threading.Thread.start` takes one that the interrupted code may hold, and it blocks the event
    loop until the thread runs.

    Args:
        run: called in the thread, and called again after a fork. It has to call `must_pause` at
            each turn, and to return True where that does.
        wake: makes `run` call `must_pause` soon.
        lost: called if the system has no thread to give after a fork.
        forget: called in the child of a fork, where the thread is not.
        cannot_wait: returns True if the thread has to go on at once after a fork.
    """

    def __init__(
        self,
        run: Callable[[], bool],
        *,
        wake: Callable[[], object],
        lost: Callable[[], object],
        forget: Callable[[], object],
        cannot_wait: Callable[[], bool] = lambda: False,
    ) -> None:
        self._run = run
        self._wake = wake
        self._lost = lost
        self.forget = forget
        self.cannot_wait = cannot_wait
        self._life = _Life()
        self._pauses: list[bool] = []
        """An entry while a pause is wanted. `list.pop` is one C call: of the thread that wants
        to end and the thread that wants it to go on, one wins."""
        self._has_to_resume = self._is_stuck = False

    def start(self) -> bool:
        """Start the thread; return False if the system has none to give."""
        _forks.add(self)
        self._life = _Life()
        try:
            _thread.start_new_thread(self._main, (self._life,))
        except (RuntimeError, MemoryError):
            _forks.discard(self)
            return False
        return True

    def must_pause(self) -> bool:
        """Return True if `run` has to return now; it is called again later. In the thread."""
        self._is_stuck = False
        return _pop(self._pauses)

    def _main(self, life: _Life) -> None:
        life.native_id = threading.get_native_id()
        has_paused = False
        try:
            has_paused = self._run()
        finally:
            if not has_paused:
                _forks.discard(self)
            life.has_returned = True

    # As `ForkParticipant`

    def pause(self) -> None:
        """Make the thread end, unless it is the one that forks."""
        self._has_to_resume = self._life.native_id != threading.get_native_id()
        if self._has_to_resume:
            self._pauses.append(True)
            self._wake()

    def has_paused(self) -> bool:
        """Return True if the system has no such thread any more.

        Also if it is the one that forks, or if an earlier fork has waited for it in vain, and it
        has made no turn since then.
        """
        if self._is_stuck or not self._has_to_resume:
            return True
        return self._life.has_returned and not exists(self._life.native_id)

    def resume(self) -> None:
        """Start the thread again, or let it go on if it has not paused in time."""
        if not self._has_to_resume:
            return
        if _pop(self._pauses):
            self._is_stuck = True
        elif not self.start():
            self._lost()


class JobThread(BareThread):
    """A `BareThread` that does what it is given, in order.

    Args:
        lost, forget, cannot_wait: see `BareThread`.
        is_done: asked after each job; the thread ends if it returns True.
        due_in: returns the seconds until *when_due* is called, if no job comes before; infinite
            for never. Asked again after each job.
        when_due: what the thread does then.
    """

    def __init__(
        self,
        *,
        is_done: Callable[[], bool],
        lost: Callable[[], object],
        forget: Callable[[], object],
        cannot_wait: Callable[[], bool] = lambda: False,
        due_in: Callable[[], float] = lambda: math.inf,
        when_due: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(
            self._do_jobs, wake=self.wake, lost=lost, forget=forget, cannot_wait=cannot_wait
        )
        # `SimpleQueue.put` is documented as reentrant: a signal handler may interrupt one.
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._is_done = is_done
        self._due_in = due_in
        self._when_due = when_due

    def give(self, job: Callable[[], object]) -> None:
        """Make the thread call *job*, after what it was given before. *job* must not raise."""
        self._jobs.put(job)
        resume()  # a fork may have paused the thread, and nobody has needed it since

    def wake(self) -> None:
        """Make the thread ask `is_done` and `due_in` again, if no fork has paused it."""
        self._jobs.put(_do_nothing)

    def waiting(self) -> int:
        """Return the number of jobs that wait."""
        return self._jobs.qsize()

    def do_here(self) -> None:
        """Do the jobs that wait, in the calling thread: this one has not come back from a fork."""
        while self.waiting():
            self._jobs.get()()

    def _do_jobs(self) -> bool:
        while not self.must_pause():
            seconds = self._due_in()
            try:
                job = self._jobs.get(timeout=None if math.isinf(seconds) else seconds)
            except queue.Empty:
                job = self._when_due
            job()
            if self._is_done():
                return False
        return True


def _do_nothing() -> None:
    """Wake a thread."""


class _Life:
    """One thread of the system, from its start to its end."""

    __slots__ = ("has_returned", "native_id")

    def __init__(self) -> None:
        self.native_id = 0
        self.has_returned = False


def _pop(tokens: list[bool]) -> bool:
    """Take a token out; return False if there is none. One caller gets it, whoever interrupts."""
    try:
        return tokens.pop()
    except IndexError:
        return False


def exists(native_id: int) -> bool:
    """Return True while the kernel has this thread, a moment longer than Python has.

    Only Linux shows that. `sched_getaffinity` asks the kernel for one thread, and reads no file:
    the fork may be called on an event loop, under a tool that forbids that.
    """
    try:
        os.sched_getaffinity(native_id)
    except (AttributeError, OSError):
        return False
    return True


class _Forks:
    """The participants of this process's forks."""

    def __init__(self) -> None:
        self._participants: set[ForkParticipant] = set()
        self._paused: list[ForkParticipant] = []
        self._turn = [True]
        """A token; none while a thread forks. Another one that forks meanwhile leaves all as it is:
        its process has two threads in any case."""
        self._forking = 0
        """The thread that forks; 0 where there is none."""
        self._is_registered = False

    def add(self, participant: ForkParticipant) -> None:
        """Pause *participant* for each fork from now on."""
        if not self._is_registered and hasattr(os, "register_at_fork"):  # not on Windows
            self._is_registered = True
            os.register_at_fork(
                before=self._before,
                after_in_parent=self._after_in_parent,
                after_in_child=self._after_in_child,
            )
        self._participants.add(participant)

    def discard(self, participant: ForkParticipant) -> None:
        """Leave forks to themselves: remove a participant."""
        self._participants.discard(participant)

    def resume(self) -> None:
        """Resume what a fork has paused. Cheap where nothing is; safe in a signal handler."""
        while self._paused and not self._forking:
            with contextlib.suppress(IndexError):  # a signal handler was faster
                self._paused.pop().resume()

    # Called by `os.register_at_fork`'s hook, in the thread that forks

    def _before(self) -> None:
        if not _pop(self._turn):
            return
        self._forking = _thread.get_ident()
        # A copy is one C call: a thread that ends now removes itself from the set.
        participants = tuple(self._participants)
        pausing = [each for each in participants if each not in self._paused]
        for participant in pausing:
            participant.pause()
        self._paused += pausing
        _wait_for(pausing)

    def _after_in_parent(self) -> None:
        if self._forking != _thread.get_ident():
            return
        self._forking = 0
        self._turn.append(True)
        loop = running_asyncio_loop() if COUNTS_LATE else None
        if loop is None or any(each.cannot_wait() for each in self._paused):
            self.resume()
        else:
            loop.call_soon(self.resume)

    def _after_in_child(self) -> None:
        for participant in self._participants:
            participant.forget()
        self._participants.clear()
        self._paused, self._forking, self._turn = [], 0, [True]


def _wait_for(pausing: Iterable[ForkParticipant]) -> None:
    deadline = monotonic() + END_PERIOD
    while not all(each.has_paused() for each in pausing) and monotonic() < deadline:
        select.select((), (), (), _LOOK_PERIOD)  # gives the interpreter lock to the threads


_forks: Final = _Forks()
add_participant: Final = _forks.add
remove_participant: Final = _forks.discard
resume: Final = _forks.resume
