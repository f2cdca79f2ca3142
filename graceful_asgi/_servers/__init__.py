"""The server edges, and how a drainer finds the one it runs in."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from .. import log
from .._core.server_context import ServerContext
from .._diagnostics.watchdog import MARGIN
from .._extensions.registry import start_extensions
from ..event_loop import run_blocking
from . import gunicorn, policy_check
from .finder import find_server
from .server_id import server_id, server_pid
from .touchpoints import missing
from .uvicorn import UvicornHook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._core.runner import DrainRunner
    from ..types import Scope
    from .touchpoints import Server

__all__ = ["UvicornHook", "attach"]


async def attach(
    drainer: DrainRunner,
    scope: Scope,
    *,
    anew: bool = True,
    has_endpoint: bool = False,
    origins: Sequence[str] = (),
) -> UvicornHook | None:
    """Hook the server that *scope* comes from; None where it is not one this package knows.

    A server that is hooked already keeps its drain: the hook that is returned has it. Says in
    the log which it was. Call it from the lifespan or from a request, on the server's loop. With
    *anew* no other server has the drainer: one that has been through a drain serves again. With
    *has_endpoint* the server answers a path that drains it, in all of its processes. *origins* are
    for the log.

    Raises:
        ControlError: the directory for control sockets is not one that can be used.
    """
    server = find_server(scope)
    if server is not None and (hook := UvicornHook.of(server)) is not None:
        return hook
    if server is not None:
        log.follow("uvicorn.error")
    drainer.bind(anew=anew)
    drainer.context = ServerContext(
        pid=server_pid(server),
        identify=partial(server_id, server),
        has_endpoint=has_endpoint,
        origins=origins,
    )
    await start_extensions(drainer)
    if server is None:
        log.passive("no uvicorn server found here", origins)
        return None
    if sys.platform == "win32":
        log.passive("signals stop no server in order on Windows", origins)
        return None
    if names := missing(server):
        log.passive(f"this uvicorn has no {', '.join(names)}", origins)
        return None
    hook = UvicornHook(server, drainer)
    if drainer.context.is_worker:
        await run_blocking(hook.put_aside, scope)
    else:
        hook.put_aside(scope)
    if (first := UvicornHook.of(server)) is not None:  # another middleware of the app was faster
        hook.give_back()
        drainer.server_closed()
        return first
    with _set_back_on_failure(server, drainer):
        hook.install(scope)
        _mind_parent(server, hook)
    if scope["type"] != "lifespan" and server.config.lifespan != "off":
        log.caution(
            "found the server at its first request, because its lifespan does not reach "
            "GracefulMiddleware: before that it would have stopped without a drain; put the "
            "middleware around the outermost app"
        )
    return hook


@contextmanager
def _set_back_on_failure(server: Server, drainer: DrainRunner) -> Iterator[None]:
    """Set both back to what they were if the block raises: no server is hooked by half."""
    before = [(each, dict(vars(each))) for each in (server, server.lifespan)]
    events = tuple(drainer.server_events)
    try:
        yield
    except BaseException:
        for each, attributes in before:
            vars(each).clear()
            vars(each).update(attributes)
        drainer.server_events[:] = events
        drainer.server = drainer.loop_monitor = None
        raise


def _mind_parent(server: Server, hook: UvicornHook) -> None:
    """Hear what a gunicorn tells its worker, and say what of the policy is cut short."""
    worker = gunicorn.worker_of(server)
    if worker is not None:
        hook.drainer.server_events.append(gunicorn.QuickStopHandlers(server, worker))
    policy_check.check(
        hook.drainer.policy,
        MARGIN + getattr(server, "exit_margin", 0.0),  # a parent of ours comes after that
        graceful_timeout=None if worker is None else worker.cfg.graceful_timeout,
        timeout_graceful_shutdown=server.config.timeout_graceful_shutdown,
    )
