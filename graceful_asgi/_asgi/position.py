"""Finds the other ASGI apps that are called before the middleware, and warns about them.

An app does not know what wraps it. But the call of the lifespan goes through all of the wrappers,
one inside of the other, and each has the scope among its local variables.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .. import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from ..types import Scope

_TRANSPARENT: Final = frozenset(
    (
        # Wrappers that servers put around an app.
        *("uvicorn", "hypercorn", "granian", "daphne", "mangum", "asgi_lifespan"),
        # Frameworks: the parts that are outside of every middleware.
        *("starlette.applications", "starlette.middleware.errors", "fastapi", "litestar"),
        *("quart", "django", "channels", "datasette", "graceful_asgi"),
        # Middleware that answers no request in the app's place.
        *("starlette.middleware.cors", "starlette.middleware.gzip"),
        *("starlette.middleware.sessions", "asgi_correlation_id", "starlette_context"),
        *("opentelemetry", "sentry_sdk", "ddtrace", "newrelic", "elasticapm", "scout_apm"),
    )
)
"""Modules and packages whose apps pass every request on. Some of them always wrap the whole app, so
a user could not move the middleware outside of them."""

_PARAMETERS: Final = frozenset(("scope", "receive", "send"))

_FRAMEWORKS: Final = ("starlette.applications", "fastapi.applications")


class Outside(NamedTuple):
    """The apps outside of the middleware that may answer requests, from the inside out."""

    same_app: Sequence[str]
    """Other middleware of the app that has this one."""
    around: Sequence[str]
    """The apps that contain that app."""


def check_position(scope: Scope, paths: Sequence[str]) -> None:
    """Warn if other apps get requests that the middleware should get. Call it at startup.

    Args:
        scope: the lifespan's scope, as the middleware was called with it.
        paths: the paths that the middleware answers itself.
    """
    try:
        outside = find_outside(scope)
    except Exception:  # the local variables of other people's code may do anything
        log.failed("looking for what is outside of GracefulMiddleware failed; the server goes on")
        return
    if outside.around:
        log.caution(
            "GracefulMiddleware is inside of %s: requests that are answered there do not pass "
            "through it; put it around the outermost app",
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
    """Return the apps outside of the caller, in the call that brought *scope*."""
    same_app: list[str] = []
    around: list[str] = []
    names = same_app
    found: list[FrameType] = list(_callers(scope))
    # If the app was wrapped by hand and not by `add_middleware`, all of them contain it.
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
    """Return True if the frame is that of an ASGI app: it has a scope as an argument.

    A server makes its scope itself. Some apps pass on a copy, so scopes are compared by type only.
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
