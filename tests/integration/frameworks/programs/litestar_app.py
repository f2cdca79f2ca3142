"""Litestar: handlers, a sync one, background tasks, a stream, a WebSocket listener."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from litestar import Litestar, Request, get, websocket_listener
from litestar.background_tasks import BackgroundTask
from litestar.response import Response, Stream

from graceful_asgi import GracefulMiddleware

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def afterwards() -> None:
    with ledger.entry("background task"):
        await asyncio.sleep(0.2)


@get("/")
async def root() -> Response[str]:
    return Response("ok", background=BackgroundTask(afterwards))


@get("/slow")
async def slow(request: Request[Any, Any, Any]) -> Response[str]:
    await asyncio.sleep(float(request.query_params.get("s", "1")))
    return Response("slow", background=BackgroundTask(afterwards))


@get("/sync", sync_to_thread=True)
def sync_slow(request: Request[Any, Any, Any]) -> str:
    time.sleep(float(request.query_params.get("s", "1")))
    return "slow"


@get("/stream")
async def stream() -> Stream:
    async def parts() -> AsyncIterator[str]:
        with ledger.entry("stream"):
            for number in range(10):
                await asyncio.sleep(0.1)
                yield f"{number}\n"

    return Stream(parts())


@websocket_listener("/ws")
async def ws(data: str) -> str:
    return data


litestar = Litestar([root, slow, sync_slow, stream, ws], on_shutdown=[ledger.close])
app = GracefulMiddleware(litestar)
