"""A server as vLLM starts it: its own handler of SIGTERM in the loop, which cancels `serve()`.

`python -m integration.frameworks.programs.vllm_like PORT`. Tokens are streamed to a POST; an engine
lives in a task beside the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys

import uvicorn
from fastapi import FastAPI

from graceful_asgi import GracefulMiddleware

from . import ledger
from .tokens import add_endpoints

app = FastAPI()
add_endpoints(app, "/v1/completions", "completion")
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
