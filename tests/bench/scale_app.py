"""The apps that `scale` stops with thousands of clients. They print how long the loop was held."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from graceful_asgi import GracefulMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

LOOK_PERIOD = 0.002
"""Seconds between two looks at the clock."""


class LongestBlock:
    """The longest time in which the loop ran nothing else.

    It is time of the loop's own thread: what the clients take of the machine does not count. A full
    garbage collection is Python's, and is counted by itself: before the stop, and from then on.
    """

    def __init__(self) -> None:
        self.seconds = self.collection = self.collection_before = 0.0
        self._collecting = self._collected = 0.0
        gc.callbacks.append(self._collects)

    async def measure(self) -> None:
        while True:
            before, collected = time.thread_time(), self._collected
            await asyncio.sleep(LOOK_PERIOD)
            took = time.thread_time() - before - (self._collected - collected)
            self.seconds = max(self.seconds, took)

    def _collects(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
            return
        took = time.thread_time() - self._collecting
        self._collected += took
        self.collection = max(self.collection, took)

    def begin(self) -> None:
        """Count from now on: the clients' arrival is another matter."""
        self.collection_before, self.seconds, self.collection = self.collection, 0.0, 0.0

    def __str__(self) -> str:
        seconds = (self.seconds, self.collection_before, self.collection)
        return (
            "longest block {:.0f} ms, longest collection before {:.0f} ms, since {:.0f} ms".format(
                *(each * 1000 for each in seconds)
            )
        )


longest_block = LongestBlock()


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    measuring = asyncio.create_task(longest_block.measure())
    yield
    measuring.cancel()
    sys.stdout.write(f"{longest_block}\n")
    sys.stdout.flush()


async def begin(request: Request) -> Response:
    longest_block.begin()
    return PlainTextResponse("ok")


async def index(request: Request) -> Response:
    return PlainTextResponse("ok")


async def hang(request: Request) -> Response:
    await asyncio.sleep(3600)
    return PlainTextResponse("never")


async def events(request: Request) -> Response:
    async def rare() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(30)

    return StreamingResponse(rare(), media_type="text/event-stream")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


def make_app() -> Starlette:
    return Starlette(
        routes=[
            Route("/", index),
            Route("/begin", begin),
            Route("/hang", hang),
            Route("/events", events),
            WebSocketRoute("/ws", echo),
        ],
        lifespan=lifespan,
    )


plain = make_app()
app = make_app()
app.add_middleware(GracefulMiddleware)
