"""Finds out who handles a signal of this process: uvicorn, Python, or the program.

`OriginalHandlers` sets the right handlers where several servers end.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import signal
import sys
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .touchpoints import Server

UVICORNS: Final = (signal.SIGINT, signal.SIGTERM)
"""Signals that uvicorn handles while it serves: `uvicorn.server.HANDLED_SIGNALS`."""

DEPTH: Final = 12
"""The references to follow from a handler to a server, one after the other, at the most. A handler
that calls the one before it is 2 of them away from the server, one that cancels `serve()` 4, and
one that sets an event for which a task with the server waits 8."""

MOST: Final = 2_000
"""The objects to look at, at the most. That takes some 10 ms, on the event loop."""


def server_of(handler: object) -> object | None:
    """Return the uvicorn server whose own handler *handler* is (`Server.handle_exit`), or None."""
    module = sys.modules.get("uvicorn.server")
    owner = getattr(handler, "__self__", None)
    return owner if module is not None and isinstance(owner, module.Server) else None


class OriginalHandlers:
    """The handlers of uvicorn's signals that were set before any server of the process set its own.

    `Server.capture_signals` restores the handlers that it found as its server started. If servers
    do not end in the reverse order of their starts, these are the wrong ones: a server that started
    first and ends first takes the handlers from the servers that go on, and one that ends later
    restores the handlers of a server that is gone.
    """

    def __init__(self, goes_on: Callable[[Any], bool]) -> None:
        self._goes_on = goes_on
        self._known: dict[int, Any] = {}

    def put_back(self, *, but_for: Sequence[Server]) -> None:
        """Set the original handlers, or those of the last of the servers *but_for* that go on.

        Call it as a server ends, once uvicorn has restored what it found.
        """
        for signum in UVICORNS:
            handler = signal.getsignal(signum)
            owner = server_of(handler)
            if owner is None:
                self._known[signum] = handler
            elif any(owner is server for server in but_for) or (
                not but_for and self._goes_on(owner)
            ):
                continue
            wanted = but_for[-1].handle_exit if but_for else self._known.get(signum)
            if wanted is not None and wanted != handler:
                signal.signal(signum, wanted)


def is_pythons_own(handler: object) -> bool:
    """Return True for the handler that raises KeyboardInterrupt, and for that of `asyncio.run`.

    The latter cancels the main task, and `asyncio.run` raises KeyboardInterrupt in the end.
    """
    if handler is signal.default_int_handler:
        return True
    runner = getattr(asyncio, "Runner", None)  # from Python 3.11 on
    method = getattr(handler, "func", None)
    return runner is not None and isinstance(getattr(method, "__self__", None), runner)


def name_handler(handler: object) -> str:
    """Name a handler, and the place in the source where it stands."""
    if handler is signal.SIG_DFL:
        return "SIG_DFL: it ends the process at once"
    if handler is signal.SIG_IGN:
        return "SIG_IGN: the process ignores it"
    if handler is None:
        return "a handler that was not installed from Python"
    function = handler.func if isinstance(handler, functools.partial) else handler
    function = getattr(function, "__func__", function)
    module = getattr(function, "__module__", None) or type(function).__module__
    name = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def callbacks_of(signum: int, handler: object) -> list[object]:
    """Return the callbacks that a signal runs in the end.

    After `loop.add_signal_handler` that is a callback of the event loop, else the *handler* itself.
    asyncio sets a handler that does nothing, uvloop a method of its loop. Both keep the callbacks
    in a dictionary by number; that of uvloop is visible to the garbage collector only.
    """
    loop = asyncio.get_running_loop()
    noop = getattr(sys.modules.get("asyncio.unix_events"), "_sighandler_noop", None)
    if handler is None or not (handler is noop or getattr(handler, "__self__", None) is loop):
        return [handler]
    own = getattr(loop, "_signal_handlers", None)
    tables: list[Any] = [own]
    if own is None:
        tables = [each for each in _referents(loop) if isinstance(each, dict)]
    found = [table[signum] for table in tables if signum in table]
    handles = [each for each in found if "Handle" in type(each).__name__]
    return [callback for each in handles for callback in _callables_of(each)] or [handler]


def _callables_of(handle: object) -> list[object]:
    """Return the callback of an event loop's handle, and its arguments."""
    callback = getattr(handle, "_callback", None)
    if callback is not None:
        return [callback, *(getattr(handle, "_args", None) or ())]
    found = [each for each in _referents(handle) if not isinstance(each, asyncio.AbstractEventLoop)]
    return sorted(found, key=callable, reverse=True)


def reaches(callbacks: Iterable[object], server: Server) -> bool:
    """Return True if references lead from *callbacks* to *server*.

    A handler that calls the one it has replaced refers to it by a closure, an attribute or a
    global. Other handlers refer to the server (to set `should_exit`), to its task (vLLM cancels
    it), or to an event that a task with the server waits for.
    """
    level, seen = [each for each in callbacks if each is not None], set[int]()
    for _ in range(DEPTH):
        following: list[object] = []
        for each in level:
            if each is server or server_of(each) is server:
                return True
            if id(each) in seen or len(seen) > MOST:
                continue
            seen.add(id(each))
            following.extend(_leads_to(each))
        level = following
    return False


def _leads_to(value: object) -> Iterator[object]:
    """Yield the objects that a callable, or an object it refers to, may act upon."""
    if isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _variables_of(value)
    elif isinstance(value, types.CodeType | types.FrameType | types.ModuleType | type):
        return
    elif isinstance(value, asyncio.AbstractEventLoop):
        return  # every object can be reached from a loop
    elif isinstance(value, types.CoroutineType):
        if value.cr_frame is not None:
            yield from value.cr_frame.f_locals.values()
        yield value.cr_await
    elif isinstance(value, asyncio.Task):
        yield value.get_coro()
    else:
        yield from itertools.islice(_referents(value), 100)


def _variables_of(function: types.FunctionType) -> Iterator[object]:
    """Yield the values of a function's closure, of its defaults, and of the globals in its code."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    codes: list[Any] = [function.__code__]
    while codes:
        code = codes.pop()
        yield from (
            function.__globals__[name] for name in code.co_names if name in function.__globals__
        )
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]


def _referents(value: object) -> Iterator[object]:
    skipped = (type, types.ModuleType, str, bytes, int, float)
    return (each for each in gc.get_referents(value) if not isinstance(each, skipped))
