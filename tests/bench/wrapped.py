"""The app that `throughput` serves: BENCH_FRAMEWORK says in which framework, BENCH_MIDDLEWARE under
what. It answers "ok"."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from graceful_asgi.types import ASGIApp, Receive, Scope, Send


class PassThrough:
    """The least that a middleware can be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def pass_through(app: Starlette) -> None:
    app.add_middleware(PassThrough)


def graceful(app: Starlette) -> None:
    from graceful_asgi import GracefulMiddleware

    app.add_middleware(GracefulMiddleware)


def cors(app: Starlette) -> None:
    from starlette.middleware.cors import CORSMiddleware

    app.add_middleware(CORSMiddleware, allow_origins=["https://example.org"])


def gzip(app: Starlette) -> None:
    from starlette.middleware.gzip import GZipMiddleware

    app.add_middleware(GZipMiddleware)


def correlation_id(app: Starlette) -> None:
    from asgi_correlation_id import CorrelationIdMiddleware

    app.add_middleware(CorrelationIdMiddleware)


def prometheus(app: Starlette) -> None:
    from starlette_exporter import PrometheusMiddleware

    app.add_middleware(PrometheusMiddleware)


def opentelemetry(app: Starlette) -> None:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider

    made: Any = OpenTelemetryMiddleware  # not typed
    app.add_middleware(made, tracer_provider=TracerProvider())


def base_http(app: Starlette) -> None:
    from starlette.middleware.base import BaseHTTPMiddleware

    class Empty(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    app.add_middleware(Empty)


MIDDLEWARES: dict[str, tuple[str, Callable[[Starlette], None]]] = {
    "pass-through": ("one that does nothing", pass_through),
    "graceful": ("`GracefulMiddleware`", graceful),
    "cors": ("Starlette's CORS", cors),
    "gzip": ("Starlette's GZip", gzip),
    "correlation-id": ("asgi-correlation-id", correlation_id),
    "prometheus": ("starlette-exporter (Prometheus)", prometheus),
    "opentelemetry": ("OpenTelemetry", opentelemetry),
    "base-http": ("an empty `BaseHTTPMiddleware`", base_http),
}
"""Names in the tables, and functions that add them to an app."""

FRAMEWORKS = ("Starlette", "FastAPI")


async def collections(request: Request) -> JSONResponse:
    """Answer how often the garbage collector has run."""
    return JSONResponse(sum(generation["collections"] for generation in gc.get_stats()))


def make() -> Starlette:
    """Return the app that the environment asks for."""
    if os.environ["BENCH_FRAMEWORK"] == "FastAPI":
        from fastapi import FastAPI

        fast = FastAPI()

        @fast.get("/", response_class=PlainTextResponse)
        async def ok() -> str:
            return "ok"

        app: Starlette = fast
    else:

        async def index(request: Request) -> PlainTextResponse:
            return PlainTextResponse("ok")

        app = Starlette(routes=[Route("/", index)])
    app.router.routes.append(Route("/collections", collections))
    if (name := os.environ["BENCH_MIDDLEWARE"]) in MIDDLEWARES:
        MIDDLEWARES[name][1](app)
    return app
