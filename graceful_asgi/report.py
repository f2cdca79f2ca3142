"""What a drain came to: `DrainReport`, `StuckWork`, and where stuck work waits."""

from __future__ import annotations

import functools
import gc
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from .inflight import Kind, Work
    from .phase import Phase


@dataclass(frozen=True, slots=True)
class StuckWork:
    """Work that was still in flight when its deadline passed."""

    kind: Kind
    """`http`, `websocket`, `task` (tracked work) or `lifespan`."""
    method: str
    """The request's method; empty for other kinds."""
    path: str
    """The request's path, or the name that tracked work was given."""
    age: float
    """Seconds since it began."""
    phase: str
    """How far it had come: `response not started`, `response started`, ..."""
    where: str
    """The line of the app that it was waiting at (`file:line in function`); may be empty."""

    def __str__(self) -> str:
        # A path can hold anything, a line break too: this goes into a log.
        path = "".join(char if char.isprintable() else repr(char)[1:-1] for char in self.path)
        name = " ".join(part for part in (self.kind, self.method, path) if part)
        where = f", at {self.where}" if self.where else ""
        return f"{name} for {self.age:.1f} s, {self.phase}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What became of the work that was in flight when the drain began, and came in during it.

    `completed + cancelled + aborted` is all of it, each counted once. A missed deadline is data
    here, not an error.
    """

    reason: str
    """What began the drain: `SIGTERM`, `should_exit`, ..."""
    completed: int
    """Ended by itself."""
    cancelled: int
    """Cancelled, with nothing cut: an HTTP client got its 503, a WebSocket its 1012."""
    aborted: int
    """Left with a part of an answer, or still in flight at the end of the cancel period."""
    rejected: int
    """New requests that got a 503 because of the drain. They were not in flight."""
    elapsed: float
    """Seconds from the drain's beginning to now, or to its end."""
    stuck: tuple[StuckWork, ...] = ()
    """What was still in flight when its deadline passed."""

    @property
    def clean(self) -> bool:
        """Whether everything in flight finished. The process exits 0 then, 1 otherwise."""
        return not (self.cancelled or self.aborted)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStatistics:
    """A drainer at one moment."""

    phase: Phase
    reason: str
    in_flight: int
    oldest: StuckWork | None
    """The work that has been in flight longest (it need not be stuck)."""
    completed: int
    cancelled: int
    aborted: int
    rejected: int
    elapsed: float
    """Seconds since the drain began; 0 while serving."""
    time_left: float
    """Seconds until the work in flight is cancelled; infinite where no stop has come."""
    kinds: Mapping[Kind, int] = field(default_factory=dict)
    """How much of each kind is in flight; what is not there is absent."""
    tracked: Mapping[str, int] = field(default_factory=dict)
    """The app's own work in flight (`Drainer.track`), by the names it was given."""


@dataclass(slots=True)
class Tally:
    """What has become of the work since a drain began."""

    completed: int = 0
    cancelled: int = 0
    aborted: int = 0
    rejected: int = 0
    stuck: dict[object, StuckWork] = field(default_factory=dict)

    def count(self, work: Work) -> None:
        """Count *work* that has just ended."""
        setattr(self, work.outcome, getattr(self, work.outcome) + 1)

    def counts(self) -> dict[str, int]:
        """Return the counts by name, as `DrainReport` and `DrainStatistics` take them."""
        return {
            "completed": self.completed,
            "cancelled": self.cancelled,
            "aborted": self.aborted,
            "rejected": self.rejected,
        }


def stuck_work(work: Work, now: float) -> StuckWork:
    """Describe *work* as it stands. Safe from any thread."""
    return StuckWork(
        kind=work.kind,
        method=work.method,
        path=work.path,
        age=now - work.began,
        phase=work.progress,
        where=where(work.coroutine()),
    )


_OWN: Final = os.path.join(os.path.dirname(__file__), "")


def where(coroutine: object) -> str:
    """Say where a coroutine waits: its innermost line outside of the libraries, if it has one.

    "Waiting in anyio/_backends" helps nobody at three in the morning; the app's own line does.
    """
    running = bool(getattr(coroutine, "cr_running", False))
    chain = _running_frames(coroutine) if running else await_chain(coroutine)
    frames = [frame for frame in chain if not frame.f_code.co_filename.startswith(_OWN)]
    own = [frame for frame in frames if not _is_library(frame.f_code.co_filename)]
    if not frames:
        return ""
    frame = own[-1] if own else frames[-1]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _running_frames(coroutine: object) -> list[FrameType]:
    """Return the frames from *coroutine* inwards. One that runs (and blocks its loop) awaits
    nothing; what it does stands on the stack of its thread."""
    outermost = getattr(coroutine, "cr_frame", None)
    for innermost in sys._current_frames().values():
        stack = _stack(innermost)
        if outermost in stack:
            return stack[stack.index(outermost) :]
    return []


def _stack(innermost: FrameType) -> list[FrameType]:
    stack: list[FrameType] = []
    frame: FrameType | None = innermost
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack[::-1]


def await_chain(awaitable: object) -> Iterator[FrameType]:
    """Yield the frames of what a coroutine awaits, outermost first.

    Coroutines, generators and async generators name what they await under different names. What
    has none of them (a future) ends the chain.
    """
    while awaitable is not None:
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
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
    return None


def _is_wrapper(thing: object) -> bool:
    return type(thing).__name__ in _WRAPPERS


def thread_stacks(*, leave_out: str) -> Iterator[str]:
    """Yield the stack of every thread as text, but for those that run code of file *leave_out*."""
    main = threading.main_thread().ident
    for ident, innermost in sys._current_frames().items():
        if all(frame.f_code.co_filename != leave_out for frame in _stack(innermost)):
            name = "main thread" if ident == main else f"thread {ident}"
            yield f"{name}:\n{''.join(traceback.format_stack(innermost)).rstrip()}"


def _is_library(filename: str) -> bool:
    return filename.startswith(_library_paths())


@functools.cache
def _library_paths() -> tuple[str, ...]:
    installed = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return (*(os.path.join(path, "") for path in installed), "<frozen")
