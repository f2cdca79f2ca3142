"""Where the middleware stands in an app: which other ASGI apps are called before it.

An app is not told what stands around it. But the call of the lifespan goes through all of them,
one inside of the other, and each has the scope among its local variables.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .. import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from ..types import Scope

_TRANSPARENT: Final = frozenset(
    (
        # What servers put around an app.
        *("uvicorn", "hypercorn", "granian", "daphne", "mangum", "asgi_lifespan"),
        # Frameworks: what of them stands outside of every middleware.
        *("starlette.applications", "starlette.middleware.errors", "fastapi", "litestar"),
        *("quart", "django", "channels", "datasette", "graceful_asgi"),
        # Middleware that answers no request in the app's place.
        *("starlette.middleware.cors", "starlette.middleware.gzip"),
        *("starlette.middleware.sessions", "asgi_correlation_id", "starlette_context"),
        *("opentelemetry", "sentry_sdk", "ddtrace", "newrelic", "elasticapm", "scout_apm"),
    )
)
"""Modules, with all that is in them, whose apps pass every request on. Some of them put themselves
outside of everything, and nobody could move them."""

_PARAMETERS: Final = frozenset(("scope", "receive", "send"))

_FRAMEWORKS: Final = ("starlette.applications", "fastapi.applications")


@dataclass(frozen=True, slots=True)
class Outside:
    """What stands outside of the middleware and may answer requests itself, from the inside out."""

    same_app: Sequence[str]
    """Middleware of the very app that has this one."""
    around: Sequence[str]
    """What that app is a part of."""


def check_position(scope: Scope, paths: Sequence[str]) -> None:
    """Warn where other apps get requests that the middleware should have. Call it at startup.

    Args:
        scope: the lifespan's, as the middleware was called with it.
        paths: those that the middleware answers itself.
    """
    try:
        outside = find_outside(scope)
    except Exception:  # frames hold what other people's code has put there
        log.failed("what is outside of GracefulMiddleware cannot be found")
        return
    if outside.around:
        log.caution(
            "GracefulMiddleware is inside of %s: requests that are answered there do not pass it; "
            "put it around the outermost app",
            ", ".join(outside.around),
        )
    elif outside.same_app and paths:
        log.caution(
            "%s is outside of GracefulMiddleware, and gets the requests for %s first: add "
            "GracefulMiddleware last",
            ", ".join(outside.same_app),
            ", ".join(paths),
        )


def find_outside(scope: Scope) -> Outside:
    """Return what stands outside of the caller in the call that *scope* came by."""
    same_app: list[str] = []
    around: list[str] = []
    names = same_app
    found: list[FrameType] = list(_callers(scope))
    # An app that is wrapped by hand, and not by `add_middleware`, has all of them around it.
    if not any(_module(frame).startswith(_FRAMEWORKS) for frame in found):
        names = around
    for frame in found:
        module = _module(frame)
        if module.startswith(_FRAMEWORKS):
            names = around
        elif not _is_transparent(module):
            name = _name(frame)
            if name not in names:
                names.append(name)
    return Outside(same_app, around)


def _callers(scope: Scope) -> Iterator[FrameType]:
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if _is_call(frame, scope):
            yield frame


def _is_call(frame: FrameType, scope: Scope) -> bool:
    """Return whether the frame is that of an ASGI app. A server has a scope, and is not given one.

    Some apps give a copy of the scope to the app inside of them, so it is known by its type.
    """
    code = frame.f_code
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if not _PARAMETERS.issubset(parameters):
        return False
    held = frame.f_locals.get("scope")
    return isinstance(held, MutableMapping) and held.get("type") == scope["type"]


def _module(frame: FrameType) -> str:
    owner = frame.f_locals.get("self")
    if owner is None:
        return str(frame.f_globals.get("__name__", ""))
    return type(owner).__module__


def _is_transparent(module: str) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in _TRANSPARENT for length in range(1, len(parts) + 1))


def _name(frame: FrameType) -> str:
    owner: Any = frame.f_locals.get("self")
    if owner is None:
        return f"{_module(frame)}.{frame.f_code.co_name}"
    dispatch = getattr(owner, "dispatch_func", None)  # of a function below `@app.middleware`
    function = getattr(dispatch, "__func__", dispatch)
    if function is not None and function is not getattr(type(owner), "dispatch", None):
        return f"{function.__module__}.{function.__qualname__}"
    return f"{type(owner).__module__}.{type(owner).__qualname__}"
