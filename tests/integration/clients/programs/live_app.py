"""Event streams and WebSockets whose clients come back after each end.

Events are numbered, and go on after the `Last-Event-ID` of the request. `/ticks/NAME` makes the
stream with Starlette, FastAPI or sse-starlette.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Header, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse as FastAPIEventSourceResponse
from fastapi.sse import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from graceful_asgi import GracefulMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TICK_PERIOD = 0.03

app = FastAPI()
app.add_middleware(GracefulMiddleware)


async def numbers(last: int) -> AsyncIterator[int]:
    while True:
        last += 1
        yield last
        await asyncio.sleep(TICK_PERIOD)


@app.get("/")
async def index() -> str:
    return "here"


@app.get("/ticks/starlette")
async def in_pieces(last_event_id: int = Header(default=0)) -> Any:
    """Send each event in two pieces: half of the time one is half sent."""

    async def events() -> AsyncIterator[str]:
        async for number in numbers(last_event_id):
            yield f"id: {number}\ndata: tick "
            await asyncio.sleep(TICK_PERIOD)
            yield f"{number}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/ticks/fastapi", response_class=FastAPIEventSourceResponse)
async def with_fastapi(last_event_id: int = Header(default=0)) -> AsyncIterator[ServerSentEvent]:
    async for number in numbers(last_event_id):
        yield ServerSentEvent(raw_data=f"tick {number}", id=str(number))


@app.get("/ticks/sse-starlette")
async def with_sse_starlette(last_event_id: int = Header(default=0)) -> Any:
    async def events() -> AsyncIterator[dict[str, str]]:
        async for number in numbers(last_event_id):
            yield {"id": str(number), "data": f"tick {number}"}

    return EventSourceResponse(events())


@app.websocket("/ask")
async def ask(websocket: WebSocket) -> None:
    """Reply to each message, after some work."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            question = await websocket.receive_text()
            sys.stdout.write(f"received {question}\n")
            sys.stdout.flush()
            await asyncio.sleep(TICK_PERIOD)
            await websocket.send_text(f"reply to {question}")


@app.websocket("/push")
async def push(websocket: WebSocket) -> None:
    """Only send, and never look at what comes in."""
    await websocket.accept()
    async for number in numbers(0):
        await websocket.send_text(f"tick {number}")
