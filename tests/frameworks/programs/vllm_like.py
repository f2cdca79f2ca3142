"""A server as vLLM starts it: its own handler of SIGTERM in the loop, which cancels `serve()`.

`python -m frameworks.programs.vllm_like PORT`. Tokens are streamed to a POST; an engine lives in a
task beside the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from graceful_asgi import GracefulMiddleware

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = FastAPI()


@app.get("/")
async def root() -> str:
    return "ok"


@app.get("/slow")
async def slow(s: float = 1.0) -> str:
    await asyncio.sleep(s)
    return "slow"


@app.post("/v1/completions")
async def completions() -> StreamingResponse:
    async def tokens() -> AsyncIterator[str]:
        with ledger.entry("completion"):
            for number in range(20):
                await asyncio.sleep(0.1)
                yield f"data: token {number}\n\n"
            yield "data: [DONE]\n\n"

    return StreamingResponse(tokens(), media_type="text/event-stream")


app.add_middleware(GracefulMiddleware)


async def engine() -> None:
    for _ in itertools.count():
        await asyncio.sleep(0.05)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = uvicorn.Server(uvicorn.Config(app, port=port, access_log=False))
    engine_task = loop.create_task(engine())
    server_task = loop.create_task(server.serve())

    def stop() -> None:
        server_task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await server_task
    except asyncio.CancelledError:
        ledger.say("Shutting down FastAPI HTTP server.")
        await server.shutdown()
    finally:
        engine_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await engine_task
    ledger.close()
    ledger.say("the engine has ended")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
