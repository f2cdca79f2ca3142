"""Socket.IO in the app (`inside`: the middleware is around all) and around it (`outside`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import socketio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from graceful_asgi import GracefulMiddleware

from . import ledger

if TYPE_CHECKING:
    from starlette.requests import Request


async def root(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def slow(request: Request) -> PlainTextResponse:
    await asyncio.sleep(float(request.query_params.get("s", "1")))
    return PlainTextResponse("slow")


def make_app(*, outermost: bool) -> Any:
    starlette = Starlette(routes=[Route("/", root), Route("/slow", slow)])
    sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")

    @sio.event
    async def work(sid: str, seconds: float) -> str:
        ledger.say("work began")
        await asyncio.sleep(seconds)
        return "worked"

    if outermost:
        return GracefulMiddleware(socketio.ASGIApp(sio, starlette))
    return socketio.ASGIApp(sio, GracefulMiddleware(starlette))


inside = make_app(outermost=True)
outside = make_app(outermost=False)
