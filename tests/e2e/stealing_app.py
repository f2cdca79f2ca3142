"""An app that puts a signal handler in the place of uvicorn's. APP_STEALS says how and when:
`startup` or `request`, then `signal` or `loop`, then what the handler does.

unrelated: nothing. holds: nothing, though it knows the handler before it. chains: calls that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from graceful_asgi import GracefulMiddleware

from .app import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

WHEN, HOW, WHAT, *_ = os.environ["APP_STEALS"].split()
SIGNAL = signal.Signals[os.environ.get("APP_SIGNAL", "SIGTERM")]


def unrelated(*args: Any) -> None:
    say("the app's handler")


def steal() -> None:
    before: Any = signal.getsignal(SIGNAL)

    def holding(*args: Any) -> None:
        say("the app's handler")
        if WHAT == "chains":
            before(SIGNAL, None)

    handler = unrelated if WHAT == "unrelated" else holding
    if HOW == "loop":
        asyncio.get_running_loop().add_signal_handler(SIGNAL, handler)
    else:
        signal.signal(SIGNAL, handler)
    say("stolen")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    if WHEN == "startup":
        steal()
    yield
    say("lifespan shutdown")


async def index(request: Request) -> Response:
    """Answer when uvicorn has ticked a few times."""
    if WHEN == "request":
        steal()
    await asyncio.sleep(0.3)
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/", index)], lifespan=lifespan)
app.add_middleware(GracefulMiddleware)
