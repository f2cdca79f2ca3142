"""A proxy as litellm's: `uvicorn.run` in a program, jobs in the lifespan, streams of an upstream.

`python -m frameworks.programs.litellm_like PORT`. The upstream is in the same process, for tests.
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
from fastapi.responses import StreamingResponse

from graceful_asgi import GracefulMiddleware

from . import ledger
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


@app.get("/")
async def root() -> str:
    return "ok"


@app.get("/slow")
async def slow(s: float = 1.0) -> str:
    await asyncio.sleep(s)
    return "slow"


@app.post("/chat/completions")
async def completions() -> StreamingResponse:
    async def tokens() -> AsyncIterator[str]:
        with ledger.entry("call"):
            for number in range(20):
                await asyncio.sleep(0.1)
                yield f"data: token {number}\n\n"
            yield "data: [DONE]\n\n"
        spend.put_nowait(0.01)

    return StreamingResponse(tokens(), media_type="text/event-stream")


app.add_middleware(GracefulMiddleware)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, timeout_keep_alive=75)
    ledger.say("code after uvicorn.run")
