"""The cost of the middleware for a request while serving: `make bench`.

Two measurements, each interleaved with a pass-through middleware that does nothing, because this
is about a difference that is smaller than a machine's mood:

* in process: nanoseconds per ASGI call, from the request's start to its last message, and for each
  further piece of a stream or message of a WebSocket;
* through uvicorn and wrk: requests per second, in alternating rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.ports import free_port

from graceful_asgi import GracefulMiddleware
from graceful_asgi._check.server.process import TargetProcess

from . import counts
from .counts import PassThrough, idle_server, on_ticking_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

    from graceful_asgi.types import ASGIApp, Scope


def _starlette(middleware: type[PassThrough] | type[GracefulMiddleware]) -> Starlette:
    async def index(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    served = Starlette(routes=[Route("/", index)])
    served.add_middleware(middleware)
    return served


plain_app = _starlette(PassThrough)
graceful_app = _starlette(GracefulMiddleware)


async def _time_calls(middleware: ASGIApp, kind: str, calls: int) -> float:
    receive, send = idle_server(kind)
    scopes = [_scope(kind) for _ in range(calls)]
    start = time.perf_counter_ns()
    for scope in scopes:
        await middleware(scope, receive, send)
    return (time.perf_counter_ns() - start) / calls


def _scope(kind: str) -> Scope:
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},  # as uvicorn hands it on from the lifespan
    }


def _copied(app: Any) -> ASGIApp:
    """Return *app* with byte code of its own.

    From Python 3.11 on a call's byte code adapts itself to the function that it calls. In one app
    behind two middlewares it would be adapted to the `send` of neither.
    """
    code = app.__code__.replace()
    return FunctionType(code, app.__globals__, closure=app.__closure__)


async def nanoseconds(
    app: ASGIApp, kind: str, blocks: int, calls: int, *, lifespan: bool = True
) -> tuple[float, float]:
    """Return the least of *blocks* of *calls* each: pass-through, graceful.

    What else the machine does can only add to a block, and meets both alike.
    """
    middlewares: tuple[ASGIApp, ASGIApp] = (
        PassThrough(_copied(app)),
        await on_ticking_server(_copied(app), kind, lifespan=lifespan),
    )
    least = [math.inf, math.inf]
    for _ in range(blocks):
        for place, middleware in enumerate(middlewares):
            least[place] = min(least[place], await _time_calls(middleware, kind, calls))
    return least[0], least[1]


def in_process(blocks: int) -> Iterator[tuple[str, float, float]]:
    """Yield what is measured, and its nanoseconds: with a pass-through, and with the middleware."""
    for name, app in (("request", counts.answer), ("request with a body", counts.read)):
        yield name, *asyncio.run(nanoseconds(app, "http", blocks, 20))
    without = nanoseconds(counts.answer, "http", blocks, 20, lifespan=False)
    yield "request without a lifespan", *asyncio.run(without)
    repeated: dict[str, tuple[Callable[[int], ASGIApp], str]] = {
        "streamed piece": (counts.pieces, "http"),
        "WebSocket message and answer": (counts.echoes, "websocket"),
    }
    for name, (app_of, kind) in repeated.items():
        few, many = (asyncio.run(nanoseconds(app_of(n), kind, blocks, 1)) for n in (10, 60))
        yield name, (many[0] - few[0]) / 50, (many[1] - few[1]) / 50


def requests_per_second(rounds: int, seconds: int) -> tuple[float, float, float]:
    """Return medians over *rounds* of wrk: pass-through, graceful, and the ratio of each pair.

    Both servers run all the while, and wrk goes from one to the other: what else the machine does
    meets both alike.
    """
    rates: dict[str, list[float]] = {"plain_app": [], "graceful_app": []}
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(_serving(name)) for name in rates}
        for number in range(rounds):
            for name in sorted(rates, reverse=number % 2 == 0):
                rates[name].append(_wrk(ports[name], seconds))
    plain, ours = rates.values()
    ratios = [mine / theirs for theirs, mine in zip(plain, ours, strict=True)]
    return statistics.median(plain), statistics.median(ours), statistics.median(ratios)


@contextlib.contextmanager
def _serving(name: str) -> Iterator[int]:
    port = free_port()
    target = f"tests.bench.overhead:{name}"
    command = [sys.executable, "-m", "uvicorn", target, "--port", str(port), "--no-access-log"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as directory:
        log_path = Path(directory, "server.log")
        with TargetProcess(command, port=port, env=environment, log_path=log_path):
            yield port


def _wrk(port: int, seconds: int) -> float:
    wrk = ["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    output = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise RuntimeError(f"wrk printed no Requests/sec: {output!r}")
    return float(found.group(1))


def main() -> None:
    """Measure, and print a table of medians."""
    parser = argparse.ArgumentParser(description="What a request costs, with and without us.")
    parser.add_argument("--blocks", type=int, default=3000, help="blocks of calls in process")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of wrk, in alternation")
    parser.add_argument("--seconds", type=int, default=1, help="seconds of each round of wrk")
    options = parser.parse_args()
    python = f"Python {platform.python_version()}"
    table = Table(f"ns, {python}", "pass-through", "graceful_asgi", "difference")
    for name, plain, ours in in_process(options.blocks):
        table.add_row(name, f"{plain:.0f}", f"{ours:.0f}", f"{ours - plain:+.0f} ns")
    console = Console()
    if shutil.which("wrk") is None:
        console.print("wrk is not installed (Debian: apt-get install wrk): throughput not measured")
    else:
        plain, ours, ratio = requests_per_second(options.rounds, options.seconds)
        change = f"{(ratio - 1) * 100:+.1f} %"
        table.add_row("requests/s (uvicorn, wrk)", f"{plain:.0f}", f"{ours:.0f}", change)
    console.print(table)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
