"""Finds the uvicorn `Server` that an ASGI scope comes from, without importing uvicorn.

An app is given no reference to its server. But the server's own coroutine is suspended in a task
of this loop, and its frames have the server as `self`. That holds for the command line, workers,
reload, a program's `Server.serve()`, threads, subclasses and gunicorn. The second place to look is
the signal handler, a bound method of the server; in threads there is none.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any, cast

from .._diagnostics.await_chain import await_chain
from .._diagnostics.stacks import stack_of
from ..event_loop import running_asyncio_loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from ..types import Scope
    from .touchpoints import Server


def find_server(scope: Scope) -> Server | None:
    """Return the server that *scope* comes from, or None where it is not a uvicorn's.

    With several servers in one loop, the `state` of the lifespan or the task of the request shows
    which one it is.
    """
    module = sys.modules.get("uvicorn.server")
    if module is None or running_asyncio_loop() is None:
        return None
    found: list[Any] = []
    for candidate in _candidates():
        if isinstance(candidate, module.Server) and candidate not in found:
            found.append(candidate)
    for server in found:
        if _owns(server, scope):
            return cast("Server", server)
    # A middleware may have moved the request into a task of its own: no doubt with one server.
    return cast("Server", found[0]) if len(found) == 1 else None


def _owns(server: Any, scope: Scope) -> bool:
    if scope["type"] == "lifespan":
        lifespan = getattr(server, "lifespan", None)
        state = getattr(lifespan, "state", None)
        # `LifespanOn.main` puts its own `state` into the scope, not a copy.
        return state is not None and state is scope.get("state")
    # uvicorn's protocols run each request in a task of its own, and keep it in this set.
    return asyncio.current_task() in server.server_state.tasks


def is_served(server: Server) -> bool:
    """Return True while `serve()` of *server* runs, by what `find_server` looks at as well.

    A task of compiled code shows no frames. Then the handlers of signals show the server.
    """
    return any(candidate is server for candidate in _candidates())


def task_of(server: Server) -> asyncio.Task[Any] | None:
    """Return a task whose frames show that `serve()` of *server* runs; None if none does."""
    return next((task for task in asyncio.all_tasks() if runs(task, server)), None)


def runs(task: asyncio.Task[Any], server: Server) -> bool:
    """Return True if *task* is in a method of *server*."""
    return any(frame.f_locals.get("self") is server for frame in _frames_of(task))


def has_given_sockets(server: Server) -> bool:
    """Return True if frames show that `serve()` of *server* was given its listening sockets.

    `Server.serve`, `_serve` and `startup` have them as `sockets`, and pass them on to `shutdown`.
    Other code that calls `shutdown` may leave them out. The frames of the running task are those of
    the caller.
    """
    frames = [*_frames_of_tasks(), *stack_of(sys._getframe())]
    return any(
        frame.f_locals.get("self") is server and frame.f_locals.get("sockets") is not None
        for frame in frames
    )


def _candidates() -> Iterator[object]:
    for frame in _frames_of_tasks():
        yield frame.f_locals.get("self")
    for signum in (signal.SIGTERM, signal.SIGINT):
        yield getattr(signal.getsignal(signum), "__self__", None)


def _frames_of_tasks() -> Iterator[FrameType]:
    for task in asyncio.all_tasks():
        yield from _frames_of(task)


def _frames_of(task: asyncio.Task[Any]) -> list[FrameType]:
    frames, _ = await_chain(task.get_coro())
    return frames
