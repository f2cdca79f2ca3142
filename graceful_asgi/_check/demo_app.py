"""The demo's Starlette app, as it is (``demo_app:plain``) and with the middleware (``:graceful``).

Both are made when a server asks for them, so the plain one depends on nothing else in the package.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

SLOW_SECONDS: Final = 2.0
STREAM_CHUNKS: Final = 30
STREAM_INTERVAL: Final = 0.1
LAME_DUCK_PERIOD: Final = 2.0


async def home(request: Request) -> Response:
    """Answer at once."""
    return PlainTextResponse("hello\n")


async def slow(request: Request) -> Response:
    """Answer after `SLOW_SECONDS`."""
    await asyncio.sleep(SLOW_SECONDS)
    return PlainTextResponse("slow, but complete\n")


async def stream(request: Request) -> Response:
    """Send `STREAM_CHUNKS` chunks, one every `STREAM_INTERVAL` seconds."""
    return StreamingResponse(_chunks(), media_type="text/plain")


async def _chunks() -> AsyncIterator[bytes]:
    for number in range(STREAM_CHUNKS):
        yield b"chunk %d of %d\n" % (number + 1, STREAM_CHUNKS)
        await asyncio.sleep(STREAM_INTERVAL)


async def events(request: Request) -> Response:
    """Send an event every `STREAM_INTERVAL` seconds, for ever."""
    return StreamingResponse(_events(), media_type="text/event-stream")


async def _events() -> AsyncIterator[bytes]:
    for number in itertools.count(1):
        yield b"id: %d\ndata: tick\n\n" % number
        await asyncio.sleep(STREAM_INTERVAL)


async def upload(request: Request) -> Response:
    """Answer with the length of the body."""
    return PlainTextResponse(f"{len(await request.body())} bytes\n")


async def echo(websocket: WebSocket) -> None:
    """Send back what comes, for as long as the client likes."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())


def make_app(*, graceful: bool) -> Starlette:
    """Return the demo app; with `graceful`, the one line added that the demo is about."""
    app = Starlette(
        routes=[
            Route("/", home),
            Route("/slow", slow),
            Route("/stream", stream),
            Route("/events", events),
            Route("/upload", upload, methods=["POST"]),
            WebSocketRoute("/ws", echo),
        ]
    )
    if graceful:
        from .._asgi.middleware import GracefulMiddleware
        from ..policy import DrainPolicy

        policy = DrainPolicy(lame_duck_period=LAME_DUCK_PERIOD, event_streams="close")
        app.add_middleware(GracefulMiddleware, policy=policy)
    return app


def __getattr__(name: str) -> Starlette:
    """Make ``plain`` or ``graceful`` for a server's import string; no work at import."""
    if name in {"plain", "graceful"}:
        return make_app(graceful=name == "graceful")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
