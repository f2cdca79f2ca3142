"""An app with metrics. Its requests last until SIGUSR1 lets the oldest of them go, or SIGUSR2 all.
SIGHUP begins a drain.

`/metrics` serves them, and where APP_METRICS_PORT is set so does a thread, also with the listener
closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, make_asgi_app, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from graceful_asgi import Drainer, GracefulMiddleware
from graceful_asgi.prometheus import DrainCollector

from .app import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

drainer = Drainer()
registry = CollectorRegistry()
registry.register(DrainCollector(drainer))
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # theirs has no types
held: list[asyncio.Event] = []


async def hold(request: Request) -> Response:
    held.append(asyncio.Event())
    say("held")
    await held[-1].wait()
    return PlainTextResponse("let go")


async def ws_hold(websocket: WebSocket) -> None:
    await websocket.accept()
    held.append(asyncio.Event())
    say("held")
    await held[-1].wait()
    await websocket.close()


def let_go(count: int) -> None:
    for event in held[:count]:
        event.set()
    del held[:count]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, let_go, 1)
    loop.add_signal_handler(signal.SIGUSR2, let_go, 100)
    loop.add_signal_handler(signal.SIGHUP, drainer.begin, "SIGHUP")
    port = os.environ.get("APP_METRICS_PORT")
    if port is not None:
        start_http_server(int(port), "127.0.0.1", registry)
    yield


app = Starlette(
    routes=[
        Route("/hold", hold),
        WebSocketRoute("/ws", ws_hold),
        Mount("/metrics", make_asgi_app(registry)),
    ],
    lifespan=lifespan,
)
app.add_middleware(GracefulMiddleware, drainer=drainer)
