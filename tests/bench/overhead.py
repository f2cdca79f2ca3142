"""What the middleware costs a request while serving: `make bench`.

Two measurements, each interleaved with a pass-through middleware that does nothing, because this
is about a difference that is smaller than a machine's mood:

* in process: nanoseconds per ASGI call, from the request's start to its last message;
* through uvicorn and wrk: requests per second, in alternating rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.ports import free_port

from graceful_asgi import DrainPolicy, GracefulMiddleware
from graceful_asgi._check.server.process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.requests import Request

    from graceful_asgi.types import ASGIApp, Message, Receive, Scope, Send

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with two bytes."""
    if scope["type"] == "http":
        await send(START)
        await send(BODY)


class PassThrough:
    """The least that a middleware can be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        return await self.app(scope, receive, send)


pass_through = PassThrough(app)
graceful = GracefulMiddleware(app, policy=DrainPolicy(lame_duck_period=0))


def _starlette(middleware: type[PassThrough] | type[GracefulMiddleware]) -> Starlette:
    async def index(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    served = Starlette(routes=[Route("/", index)])
    served.add_middleware(middleware)
    return served


plain_app = _starlette(PassThrough)
graceful_app = _starlette(GracefulMiddleware)


async def _time_calls(middleware: ASGIApp, scopes: Sequence[Scope]) -> float:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    start = time.perf_counter_ns()
    for scope in scopes:
        await middleware(scope, receive, send)
    return (time.perf_counter_ns() - start) / len(scopes)


def _scope() -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "headers": [(b"host", b"localhost")],
        "state": {},  # as uvicorn hands it on from the lifespan
    }


async def nanoseconds(blocks: int, calls: int) -> tuple[float, float]:
    """Return the medians over *blocks* of *calls* each: pass-through, graceful."""
    figures: tuple[list[float], list[float]] = ([], [])
    middlewares: tuple[ASGIApp, ASGIApp] = (pass_through, graceful)
    for _ in range(blocks):
        for middleware, into in zip(middlewares, figures, strict=True):
            into.append(await _time_calls(middleware, [_scope() for _ in range(calls)]))
    return statistics.median(figures[0]), statistics.median(figures[1])


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
    parser.add_argument("--blocks", type=int, default=200, help="blocks of calls in process")
    parser.add_argument("--calls", type=int, default=1000, help="calls in each block")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of wrk, in alternation")
    parser.add_argument("--seconds", type=int, default=1, help="seconds of each round of wrk")
    options = parser.parse_args()
    table = Table("measured", "pass-through", "graceful_asgi", "difference")
    plain, ours = asyncio.run(nanoseconds(options.blocks, options.calls))
    table.add_row("ns per call", f"{plain:.0f}", f"{ours:.0f}", f"{ours - plain:+.0f} ns")
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
