"""Layers outside of the middleware are named in the log if a person should move them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount
from support.asgi import answer, serving, with_lifespan
from support.client import get_in_loop
from support.records import written
from support.server import uvicorn_in_loop

from graceful_asgi import DrainPolicy, GracefulMiddleware

if TYPE_CHECKING:
    from graceful_asgi.types import ASGIApp, Receive, Scope, Send

# A machine that stands still must not meet the hard deadline: it would end pytest.
NOW = DrainPolicy(lame_duck_period=0, grace_period=60, cancel_period=60, cleanup_period=60)
PATHS: Any = {"readiness_path": "/readyz", "liveness_path": "/livez"}


class Outer:
    """An app that has another app inside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


def tracing(app: ASGIApp) -> ASGIApp:
    """Return what an instrumentation puts around everything, and nobody can move."""

    class OpenTelemetryMiddleware(Outer):
        __module__ = "opentelemetry.instrumentation.asgi"

    return OpenTelemetryMiddleware(app)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.WARNING, "graceful_asgi")
    return lambda: [each.getMessage().partition("]: ")[2] for each in written(caplog).records]


async def start_and_stop(app: ASGIApp) -> None:
    async with serving(app) as server:
        await server.shut_down()


def add_authentication(app: Starlette) -> None:
    async def authenticate(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=authenticate)


@pytest.mark.anyio
@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_what_gets_the_platforms_requests_first_is_named(
    framework: Any, warnings: Any
) -> None:
    app = framework()
    app.add_middleware(GracefulMiddleware, **PATHS)
    add_authentication(app)
    app.add_middleware(CORSMiddleware)
    app.add_middleware(TrustedHostMiddleware)
    await start_and_stop(app)
    assert warnings() == [
        f"{__name__}.add_authentication.<locals>.authenticate, "
        "starlette.middleware.trustedhost.TrustedHostMiddleware is outside of "
        "GracefulMiddleware, and gets the requests for /readyz, /livez first: add "
        "GracefulMiddleware last"
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_nothing_is_said_where_nothing_should_be_changed(
    framework: Any, warnings: Any
) -> None:
    app = framework()
    add_authentication(app)
    app.add_middleware(GracefulMiddleware, **PATHS)
    app.add_middleware(CORSMiddleware)
    await start_and_stop(app)
    await start_and_stop(tracing(app))
    await start_and_stop(GracefulMiddleware(Outer(with_lifespan(answer)), **PATHS))
    without_paths = framework()
    without_paths.add_middleware(GracefulMiddleware)
    add_authentication(without_paths)
    await start_and_stop(without_paths)
    assert warnings() == []


@pytest.mark.anyio
async def test_a_larger_app_is_named(warnings: Any) -> None:
    """As `socketio.ASGIApp(sio, app)` is, which answers what is meant for it."""
    app = FastAPI()
    app.add_middleware(GracefulMiddleware)

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        await larger(scope, receive, send)

    larger = Outer(app)
    await start_and_stop(outermost)
    await start_and_stop(Outer(GracefulMiddleware(with_lifespan(answer))))
    assert warnings() == [
        f"GracefulMiddleware is inside of {__name__}.Outer, {__name__}.outermost: requests that "
        "are answered there do not pass through it; put it around the outermost app",
        f"GracefulMiddleware is inside of {__name__}.Outer: requests that are answered there do "
        "not pass through it; put it around the outermost app",
    ]


@pytest.mark.anyio
async def test_twice_in_one_app_is_said_if_the_inner_one_was_given_anything(warnings: Any) -> None:
    app = with_lifespan(answer)
    await start_and_stop(GracefulMiddleware(GracefulMiddleware(app), **PATHS))
    assert warnings() == []
    inner = GracefulMiddleware(app, readiness_path="/readyz", policy=NOW)
    await start_and_stop(GracefulMiddleware(inner))
    assert warnings() == [
        "GracefulMiddleware is in this app twice, and the options of the inner one have no "
        "effect: give policy=, readiness_path= to the outer one"
    ]


@pytest.mark.anyio
async def test_ready_that_nobody_asks_is_said(warnings: Any) -> None:
    await start_and_stop(GracefulMiddleware(with_lifespan(answer), ready=lambda: True))
    assert warnings() == ["ready= has no effect without readiness_path"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_mounted_app_whose_lifespan_nobody_runs_is_said(warnings: Any) -> None:
    mounted = FastAPI()
    mounted.add_middleware(GracefulMiddleware, policy=NOW)
    mounted.get("/")(lambda: "seen")
    app = Starlette(routes=[Mount("/api", app=mounted)])
    async with uvicorn_in_loop(app) as (_, port):
        await get_in_loop(port, "/api/")
        await get_in_loop(port, "/api/")
    assert len(warnings()) == 1
    assert "its lifespan does not reach GracefulMiddleware" in warnings()[0]


@pytest.mark.anyio
async def test_a_frame_that_cannot_be_looked_at_costs_no_start(
    warnings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(dict[str, Any]):
        def get(self, *key: object) -> Any:
            raise LookupError

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        inner, scope = dict(scope), Odd(scope)
        await app(inner, receive, send)

    app = GracefulMiddleware(with_lifespan(answer))
    async with serving(outer) as server:
        assert server.sent == [{"type": "lifespan.startup.complete"}]
    assert "is outside of GracefulMiddleware failed" in caplog.text


@pytest.mark.anyio
async def test_a_variable_that_is_nearly_an_option_is_said(
    warnings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRACEFUL_GRACE_PERIOOD", "20")
    await start_and_stop(GracefulMiddleware(with_lifespan(answer)))
    assert warnings() == [
        "no option has this name, so it has no effect: GRACEFUL_GRACE_PERIOOD "
        "(did you mean GRACEFUL_GRACE_PERIOD?)"
    ]
