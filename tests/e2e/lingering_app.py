"""An app that leaves something behind that keeps its process: APP_LINGERS says what.

`/job` has a process pool work for `?s=` seconds.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
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

KIND = os.environ.get("APP_LINGERS", "")
kept: list[Any] = []


def sleep_long() -> None:
    time.sleep(60)  # lingers here


def in_atexit() -> None:
    sleep_long()


async def stubborn() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)  # swallowed here


async def generator() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        await asyncio.sleep(60)  # closes here


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    if KIND == "thread":
        threading.Thread(target=sleep_long, name="poller").start()
    elif KIND == "executor":
        kept.append(asyncio.get_running_loop().run_in_executor(None, sleep_long))
    elif KIND == "atexit":
        atexit.register(in_atexit)
    elif KIND == "task":
        kept.append(asyncio.create_task(stubborn(), name="stubborn task"))
    elif KIND == "generator":
        kept.append(generator())
        await kept[0].__anext__()
    elif KIND == "child":
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=sleep_long, name="poller child")
        child.start()
    yield
    say("lifespan shutdown")


async def job(request: Request) -> Response:
    if not kept:
        context = multiprocessing.get_context(request.query_params.get("context", "spawn"))
        kept.append(ProcessPoolExecutor(1, mp_context=context))
    seconds = float(request.query_params.get("s", 0))
    loop = asyncio.get_running_loop()
    done = loop.run_in_executor(kept[0], time.sleep, seconds)
    say("job began")
    await done
    return PlainTextResponse("job done")


app = Starlette(routes=[Route("/job", job)], lifespan=lifespan)
if "APP_PLAIN" not in os.environ:
    app.add_middleware(GracefulMiddleware)
