"""The app that the benches of a stop and of memory serve, plain and with the middleware."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.ports import free_port

from graceful_asgi import GracefulMiddleware
from graceful_asgi._check.server.process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request


BEGAN = "slow began"


async def index(request: Request) -> PlainTextResponse:
    """Answer at once."""
    return PlainTextResponse("ok")


async def slow(request: Request) -> PlainTextResponse:
    """Answer after the seconds that the query says. Print a line as it begins."""
    sys.stdout.write(BEGAN + "\n")
    sys.stdout.flush()
    await asyncio.sleep(float(request.query_params["s"]))
    return PlainTextResponse("ok")


async def held(request: Request) -> PlainTextResponse:
    """Answer when the client has gone."""
    await request.body()
    await request.receive()
    return PlainTextResponse("gone")


async def memory(request: Request) -> PlainTextResponse:
    """Return the bytes that Python has in use. For a process with PYTHONTRACEMALLOC=1."""
    gc.collect()
    return PlainTextResponse(str(tracemalloc.get_traced_memory()[0]))


plain = Starlette(
    routes=[
        *(Route("/", index), Route("/slow", slow)),
        *(Route("/held", held), Route("/memory", memory)),
    ]
)
graceful = GracefulMiddleware(plain)

UVICORN = (sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning")
SERVERS = {
    "uvicorn": (*UVICORN, "tests.bench.served:plain"),
    "`GracefulMiddleware`": (*UVICORN, "tests.bench.served:graceful"),
    "`graceful-asgi run`": (
        *(sys.executable, "-m", "graceful_asgi", "run", "--no-access-log"),
        *("--log-level", "warning", "tests.bench.served:plain"),
    ),
}
"""The commands, by the names that the tables give them."""


@contextlib.contextmanager
def serving(
    command: tuple[str, ...],
    *options: str,
    env: dict[str, str] | None = None,
    start_period: float = 20.0,
) -> Iterator[TargetProcess]:
    """Run *command* on a port of its own, with no lame duck, for the length of a block.

    *start_period* is how many seconds the server has to answer.
    """
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GRACEFUL_LAME_DUCK_PERIOD": "0",
        **(env or {}),
    }
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # a tracer would be most of what is measured
    with tempfile.TemporaryDirectory() as directory:
        log_path = Path(directory, "server.log")
        arguments = [*command, "--port", str(port), *options]
        with TargetProcess(
            arguments, port=port, env=environment, log_path=log_path, start_period=start_period
        ) as process:
            yield process
