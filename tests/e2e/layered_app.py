"""An app in layers, as real ones are: a middleware that runs the rest in a task, an endpoint that
calls on, one in a thread, events, a WebSocket. Nothing in it ends by itself for a long time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.routing import WebSocketRoute

from graceful_asgi import GracefulMiddleware

from .app import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

app = FastAPI()


@app.middleware("http")
async def passes_on(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> object:
    return await call_next(request)


async def query() -> None:
    say("item began")
    await asyncio.sleep(3600)


@app.get("/items/{id}")
async def item(id: str) -> None:
    await query()


@app.get("/thread")
def thread() -> None:
    say("thread began")
    time.sleep(3600)  # in a thread


@app.get("/events")
async def events() -> StreamingResponse:
    async def endless() -> AsyncIterator[str]:
        say("events began")
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(endless(), media_type="text/plain")


async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    say("ws began")
    await asyncio.sleep(3600)


app.router.routes.append(WebSocketRoute("/ws", ws))
app.add_middleware(GracefulMiddleware)
