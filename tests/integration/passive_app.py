"""An app for servers that the middleware does not know: `plain`, and `app` with the middleware.

It runs on asyncio and on trio. What happens to a request is printed, for the test to compare.
"""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import anyio
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from starlette.websockets import WebSocketDisconnect

from graceful_asgi import GracefulMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


logging.getLogger("graceful_asgi").addHandler(logging.StreamHandler())
logging.getLogger("graceful_asgi").setLevel(logging.INFO)
logging.getLogger("graceful_asgi").propagate = False


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def after() -> None:
    say("background task ran")


async def session() -> AsyncIterator[str]:
    try:
        yield "session"
    except BaseException as error:
        say(f"rollback: {type(error).__name__}")
        raise
    say("commit")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    say("app started")
    yield
    say("app stopped")


def make() -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def index() -> str:
        return "hello"

    @app.get("/stream")
    async def stream(session: Annotated[str, Depends(session)]) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            await anyio.sleep(0.1)
            yield "b"

        return StreamingResponse(parts(), background=BackgroundTask(after))

    @app.api_route("/events", methods=["GET", "POST"])
    async def events(count: int = 1_000_000) -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            """Send each event in two pieces: half of the time one is half sent."""
            say("events began")
            for _ in range(count):
                yield "data: "
                await anyio.sleep(0.05)
                yield "tick\n\n"
                await anyio.sleep(0.05)

        return StreamingResponse(ticks(), media_type="text/event-stream")

    @app.get("/endless")
    async def endless(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            say("endless began")
            try:
                while True:
                    yield "x" * 100
                    await anyio.sleep(0.05)
            finally:
                say("endless ended")

        return StreamingResponse(parts())

    @app.get("/slow")
    async def slow(s: float = 1) -> str:
        say("slow began")
        await anyio.sleep(s)
        return "slow, but complete"

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    @app.get("/raises")
    async def raises(session: Annotated[str, Depends(session)]) -> None:
        raise ValueError("the app's own")

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                text = None
                with anyio.move_on_after(0.3):
                    text = await websocket.receive_text()
                await websocket.send_text("still there?" if text is None else f"echo {text}")
        except WebSocketDisconnect as closed:
            say(f"disconnected {closed.code}")

    return app


plain = make()
app = make()
app.add_middleware(GracefulMiddleware, readiness_path="/readyz")
