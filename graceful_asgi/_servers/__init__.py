"""Adapters for servers: `attach` finds the server that a drainer runs in, and hooks it.

Another server would get an adapter of its own (`ServerAdapter` in `_core/server_adapter.py`), and a
branch in `attach`. Until then it is passive.
"""

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
    """Hook the server that *scope* comes from; return None if this package does not know it.

    A server that is hooked already keeps its drain: then its hook is returned. Log the result.
    Call it from the lifespan or from a request, on the server's loop.

    Args:
        drainer: the drain of the server.
        scope: of the lifespan or of a request.
        anew: True if no other server has the drainer. After an earlier drain it serves again.
        has_endpoint: True if the server answers a path that drains all of its processes.
        origins: where each option that is not the default came from, for the log.

    Raises:
        ControlError: the directory for control sockets cannot be used.
    """
    server = find_server(scope)
    if server is not None and (hook := UvicornHook.of(server)) is not None:
        return hook
    if server is not None:
        log.follow("uvicorn.error")
    is_shared = drainer.server is not None and not drainer.server.gone
    if anew and not is_shared:
        # What the lifespan of a server has left that is not hooked. Its app may have none, and
        # raised: then the server is found again at its first request. Or the loop of a server was
        # closed before it could release the drainer: its app left the start by `sys.exit`.
        drainer.notifier.server_closed()
    drainer.bind(anew=anew)
    drainer.context = ServerContext(
        pid=server_pid(server),
        identify=partial(server_id, server),
        has_endpoint=has_endpoint,
        origins=origins,
    )
    if not is_shared:  # else they were started with the other server
        await start_extensions(drainer)
    why_passive = _why_passive(server)
    if server is None or why_passive:
        log.passive(why_passive, origins)
        if scope["type"] != "lifespan":  # it has sent none, and a request shows that it listens
            drainer.notifier.server_opened()
        return None
    hook = UvicornHook(server, drainer)
    if drainer.context.is_worker:
        await run_blocking(hook.adapter.put_aside, scope)
    else:
        hook.adapter.put_aside(scope)
    if (first := UvicornHook.of(server)) is not None:  # another middleware of the app was faster
        hook.adapter.give_back()
        if first.drainer is not drainer:
            drainer.notifier.server_closed()
        return first
    with _set_back_on_failure(server, drainer):
        hook.install(scope)
        _adapt_to_parent(server, hook)
    if scope["type"] != "lifespan" and server.config.lifespan != "off":
        log.caution(
            "the server was found only at its first request, because its lifespan does not reach "
            "GracefulMiddleware. A stop before that would have had no drain. Put the middleware "
            "around the outermost app"
        )
    return hook


def _why_passive(server: Server | None) -> str:
    """Return why the server cannot be hooked; an empty text if it can."""
    if server is None:
        return "no uvicorn server found here"
    if sys.platform == "win32":
        return "Windows is not supported"
    names = missing(server)
    return f"this version of uvicorn has no {', '.join(names)}" if names else ""


@contextmanager
def _set_back_on_failure(server: Server, drainer: DrainRunner) -> Iterator[None]:
    """Restore both if the block raises, so that no server stays half hooked."""
    before = [(each, dict(vars(each))) for each in (server, server.lifespan)]
    events, loop_monitor = tuple(drainer.notifier.server_events), drainer.loop_monitor
    try:
        yield
    except BaseException:
        for each, attributes in before:
            vars(each).clear()
            vars(each).update(attributes)
        drainer.notifier.server_events[:] = events
        drainer.loop_monitor = loop_monitor
        raise


def _adapt_to_parent(server: Server, hook: UvicornHook) -> None:
    """Handle gunicorn's signals if a worker runs the server; warn if the policy does not fit."""
    worker = gunicorn.worker_of(server)
    if worker is not None:
        hook.drainer.notifier.server_events.append(gunicorn.QuickStopHandlers(hook, worker))
    policy_check.check(
        hook.drainer.policy,
        MARGIN + getattr(server, "exit_margin", 0.0),  # what `graceful-asgi run` adds itself
        graceful_timeout=None if worker is None else worker.cfg.graceful_timeout,
        timeout_graceful_shutdown=server.config.timeout_graceful_shutdown,
    )
