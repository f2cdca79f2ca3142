"""Quart: async and sync views, a background task of its own, a stream, a WebSocket."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from quart import Quart, request, websocket

from graceful_asgi import GracefulMiddleware

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = Quart(__name__)


async def afterwards() -> None:
    with ledger.entry("background task"):
        await asyncio.sleep(0.2)


@app.after_serving
async def close() -> None:
    ledger.close()


@app.get("/")
async def root() -> str:
    app.add_background_task(afterwards)
    return "ok"


@app.get("/slow")
async def slow() -> str:
    await asyncio.sleep(float(request.args.get("s", "1")))
    return "slow"


@app.get("/sync")
def sync_slow() -> str:
    time.sleep(float(request.args.get("s", "1")))
    return "slow"


@app.get("/stream")
async def stream() -> AsyncIterator[bytes]:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(10):
            await asyncio.sleep(0.1)
            yield b"%d\n" % number

    return parts()


@app.websocket("/ws")
async def ws() -> None:
    while True:
        await websocket.send(await websocket.receive())


app.asgi_app = GracefulMiddleware(app.asgi_app)
