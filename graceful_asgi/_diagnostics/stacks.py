"""Describes where code waits: the frames of a coroutine, and the stacks of threads.

It reads frames and changes nothing; everything here is safe from any thread. Frames of this
package are left out, and those of libraries are only counted: "waiting in anyio/_backends" helps
nobody at three in the morning.
"""

from __future__ import annotations

import functools
import itertools
import linecache
import os
import sys
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType

_OWN: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # the whole package
_FROZEN: Final = "<frozen"
"""The beginning of the file names of frozen modules."""
_INSTALLED: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
"""Parts of the paths of installed packages, outside of this environment as well (the system's, the
user's, those that `PYTHONPATH` or a `.pth` file adds)."""


def innermost(frames: Sequence[FrameType]) -> str:
    """Return the innermost line of the app in *frames*, or of a library if there is none.

    A line of an installed package says more than one of the standard library: a request whose
    client reads slowly waits in uvicorn's `flow_control.py`, and there in asyncio's `locks.py`.
    """
    own = [frame for frame in frames if not is_library(frame)]
    installed = [frame for frame in frames if not _is_pythons(frame)]
    return next((_place(found[-1]) for found in (own, installed, frames) if found), "")


def without_own(frames: Iterable[FrameType]) -> list[FrameType]:
    """Return *frames* without those of this package."""
    return [frame for frame in frames if not frame.f_code.co_filename.startswith(_OWN)]


def stack_of(innermost: FrameType | None) -> list[FrameType]:
    """Return the whole stack that ends with the frame *innermost*, outermost first."""
    stack: list[FrameType] = []
    while innermost is not None:
        stack.append(innermost)
        innermost = innermost.f_back
    return stack[::-1]


# Threads


class ThreadStack(NamedTuple):
    """A thread, and the lines that it was running."""

    name: str
    lines: tuple[str, ...]
    """Its calls from the outermost to the innermost, the app's with their source."""


def thread_frames(ident: int | None) -> list[FrameType]:
    """Return the frames of a thread, outermost first; none where there is no such thread."""
    return without_own(stack_of(sys._current_frames().get(ident))) if ident is not None else []


def thread_stacks() -> Iterator[ThreadStack]:
    """Yield the stack of every thread, except the calling one and this package's own."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main, own = threading.main_thread().ident, threading.get_ident()
    for ident, current in sys._current_frames().items():
        frames = stack_of(current)
        name = "main thread" if ident == main else names.get(ident, f"thread {ident}")
        # The threads of this package begin in it, and the others in `threading`.
        if ident != own and not frames[0].f_code.co_filename.startswith(_OWN):
            yield ThreadStack(name, tuple(compressed(frames, with_source=True)))


def thread_name(ident: int | None) -> str:
    """Return the name of a thread; empty where there is no such thread."""
    if ident is None:
        return ""
    return next((t.name for t in threading.enumerate() if t.ident == ident), "")


# In words


def compressed(frames: Iterable[FrameType], *, with_source: bool = False) -> Iterator[str]:
    """Yield a line for each frame of the app, and one line for all library frames between two.

    If the stack has no frame of the app, the last line is the library's innermost.
    """
    frames = without_own(frames)
    for library, group in itertools.groupby(frames, is_library):
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
    for part in (*_INSTALLED, *_stdlib_paths()):
        _, found, rest = filename.rpartition(part)
        if found:
            return rest.split(os.sep)[0].removesuffix(".py") or "python"
    return "python"


def is_library(frame: FrameType) -> bool:
    """Return True if a frame's code belongs to the standard library or an installed package."""
    return _is_pythons(frame) or _is_installed(frame)


def _is_installed(frame: FrameType) -> bool:
    return any(part in frame.f_code.co_filename for part in _INSTALLED)


def _is_pythons(frame: FrameType) -> bool:
    # `site-packages` is inside of the standard library's directory.
    filename = frame.f_code.co_filename
    return filename.startswith((*_stdlib_paths(), _FROZEN)) and not _is_installed(frame)


@functools.cache
def _stdlib_paths() -> tuple[str, ...]:
    # Not by sysconfig, which opens a file: a process that reports may have no descriptor left.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    compiled = os.path.join(sys.base_exec_prefix, sys.platlibdir, version)
    return tuple({os.path.join(each, "") for each in (os.path.dirname(os.__file__), compiled)})
