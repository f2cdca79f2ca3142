"""An app with a path for every scenario: `graceful` with the middleware, `plain` without."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from graceful_asgi import GracefulMiddleware, drain_notice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


async def home(request: Request) -> Response:
    """Answer at once."""
    return PlainTextResponse("ok")


async def slow(request: Request) -> Response:
    """Answer a second later."""
    await asyncio.sleep(1)
    return PlainTextResponse("ok")


async def stream(request: Request) -> Response:
    """Take a second for the body."""

    async def chunks() -> AsyncIterator[str]:
        for number in range(10):
            yield f"{number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(chunks())


async def upload(request: Request) -> Response:
    """Read the body."""
    return PlainTextResponse(str(len(await request.body())))


async def events(request: Request) -> Response:
    """Send events until a drain begins; without the middleware for ever."""
    is_graceful = bool(request.app.user_middleware)
    notice = drain_notice(request) if is_graceful else None

    async def lines() -> AsyncIterator[str]:
        while notice is None or not notice.draining:
            yield "data: tick\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(lines(), media_type="text/event-stream")


async def hang(request: Request) -> Response:
    """Never answer."""
    await asyncio.Event().wait()
    return PlainTextResponse("never")


async def tokens(request: Request) -> Response:
    """Answer in events, as an LLM does, for a second."""
    await request.body()

    async def lines() -> AsyncIterator[str]:
        for number in range(10):
            yield f"data: token {number}\n\n"
            await asyncio.sleep(0.1)
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def echo(websocket: WebSocket) -> None:
    """Send back what comes."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


async def push(websocket: WebSocket) -> None:
    """Send, and read nothing."""
    await websocket.accept()
    try:
        while not drain_notice(websocket).draining:
            await websocket.send_text("tick")
            await asyncio.sleep(0.05)
        await websocket.close(1012)
    except (WebSocketDisconnect, OSError):
        return


def make_app() -> Starlette:
    """The app as it is."""
    routes = [Route(f"/{each.__name__}", each) for each in (slow, stream, events, hang)]
    posts = [Route(f"/{each.__name__}", each, methods=["POST"]) for each in (upload, tokens)]
    sockets = [WebSocketRoute("/ws", echo), WebSocketRoute("/push", push)]
    return Starlette(routes=[Route("/", home), *routes, *posts, *sockets])


plain = make_app()
graceful = make_app()
graceful.add_middleware(GracefulMiddleware)
