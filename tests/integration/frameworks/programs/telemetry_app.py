"""OpenTelemetry inside of the middleware (`inside`) and around it (`around`), Prometheus too."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, Counter, make_asgi_app

from graceful_asgi import Drainer, GracefulMiddleware
from graceful_asgi.prometheus import DrainCollector

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def make_app(*, outermost: bool) -> object:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    registry = CollectorRegistry()
    requests = Counter("requests", "Requests answered.", registry=registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        spans = sum(span.kind.name == "SERVER" for span in exporter.get_finished_spans())
        ledger.close()
        ledger.say(f"spans: {spans} of {ledger.ended['request']}")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root() -> str:
        with ledger.entry("request"):
            requests.inc()
            return "ok"

    @app.get("/slow")
    async def slow(s: float = 1.0) -> str:
        with ledger.entry("request"):
            await asyncio.sleep(s)
            return "slow"

    drainer = Drainer()
    registry.register(DrainCollector(drainer))
    app.mount("/metrics", make_asgi_app(registry))
    if outermost:
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        app.add_middleware(GracefulMiddleware, drainer=drainer)
        return app
    drained = GracefulMiddleware(app, drainer=drainer)
    return OpenTelemetryMiddleware(drained, tracer_provider=provider)


inside = make_app(outermost=True)
around = make_app(outermost=False)
