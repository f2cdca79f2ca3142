"""A proxy as litellm's: `uvicorn.run` in a program, jobs in the lifespan, streams of an upstream.

`python -m integration.frameworks.programs.litellm_like PORT`. The upstream is in the same process,
for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from fastapi import FastAPI

from graceful_asgi import GracefulMiddleware

from . import ledger
from .tokens import add_endpoints
from .vllm_like import app as upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

spend: asyncio.Queue[float] = asyncio.Queue()


async def write_spend() -> None:
    """Write in batches what the calls have cost, as a job that runs for as long as the proxy."""
    written = 0
    try:
        while True:
            await asyncio.sleep(0.1)
            while not spend.empty():
                spend.get_nowait()
                written += 1
    finally:
        written += spend.qsize()
        ledger.say(f"spend: {written} of {ledger.ended['call']}")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    job = asyncio.create_task(write_spend())
    transport = httpx.ASGITransport(upstream)
    async with httpx.AsyncClient(transport=transport, base_url="http://upstream") as client:
        yield {"client": client}
    job.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await job
    ledger.close()


app = FastAPI(lifespan=lifespan)
add_endpoints(app, "/chat/completions", "call", lambda: spend.put_nowait(0.01))
app.add_middleware(GracefulMiddleware)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, timeout_keep_alive=75)
    ledger.say("code after uvicorn.run")
