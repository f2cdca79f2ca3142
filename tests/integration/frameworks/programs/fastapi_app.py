"""FastAPI: dependencies with `yield`, sessions, background tasks, streams, a WebSocket."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import Response  # noqa: TC002  # an annotation that FastAPI reads

from graceful_asgi import GracefulMiddleware

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    ledger.close()


app = FastAPI(lifespan=lifespan)


async def connection() -> AsyncIterator[str]:
    with ledger.entry("dependency"):
        yield "connection"
        await asyncio.sleep(0.01)


Connection = Annotated[str, Depends(connection)]


async def afterwards() -> None:
    with ledger.entry("background task"):
        await asyncio.sleep(0.2)


@app.middleware("http")
async def counts(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return await call_next(request)


@app.get("/")
async def root(using: Connection, background: BackgroundTasks) -> str:
    background.add_task(afterwards)
    return "ok"


@app.get("/slow")
async def slow(using: Connection, background: BackgroundTasks, s: float = 1.0) -> str:
    background.add_task(afterwards)
    await asyncio.sleep(s)
    return "slow"


@app.get("/stream")
async def stream(using: Connection) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        for number in range(10):
            await asyncio.sleep(0.1)
            yield f"{number}\n"

    return StreamingResponse(parts())


@app.post("/upload")
async def upload(request: Request, using: Connection) -> int:
    return len(await request.body())


@app.get("/events")
async def events() -> StreamingResponse:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(endless(), media_type="text/event-stream")


@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


app.add_middleware(SessionMiddleware, secret_key="of the tests, of no use elsewhere")
app.add_middleware(GracefulMiddleware)
