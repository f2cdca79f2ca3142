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
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from graceful_asgi import DrainPolicy, GracefulMiddleware
from graceful_asgi.check.port import free_port
from graceful_asgi.check.process import ServerProcess
from graceful_asgi.exchange import DRAINER_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graceful_asgi.asgi import ASGIApp, Message, Receive, Scope, Send

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return await self.app(scope, receive, send)


pass_through = PassThrough(app)
graceful = GracefulMiddleware(app, policy=DrainPolicy(lame_duck_period=0))


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
        "state": {DRAINER_KEY: graceful.drainer},  # as uvicorn hands it on from the lifespan
    }


async def nanoseconds(blocks: int, calls: int) -> tuple[float, float]:
    """Return the medians over *blocks* of *calls* each: pass-through, graceful."""
    graceful.drainer.bind(anew=True)  # as a server's lifespan does
    figures: tuple[list[float], list[float]] = ([], [])
    middlewares: tuple[ASGIApp, ASGIApp] = (pass_through, graceful)
    for _ in range(blocks):
        for middleware, into in zip(middlewares, figures, strict=True):
            into.append(await _time_calls(middleware, [_scope() for _ in range(calls)]))
    return statistics.median(figures[0]), statistics.median(figures[1])


def requests_per_second(name: str, seconds: int) -> float:
    """Return what wrk measures against one uvicorn with the middleware of this name."""
    port = free_port()
    target = f"tests.bench.overhead:{name}"
    command = [sys.executable, "-m", "uvicorn", target, "--port", str(port), "--no-access-log"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    log_path = Path(tempfile.gettempdir()) / f"bench-{port}.log"
    with ServerProcess(command, port=port, env=environment, log_path=log_path):
        wrk = ["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
        output = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    log_path.unlink()
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise RuntimeError(f"wrk printed no Requests/sec: {output!r}")
    return float(found.group(1))


def main() -> None:
    """Measure, and print a table of medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of wrk, in alternation")
    parser.add_argument("--seconds", type=int, default=4, help="seconds of each round of wrk")
    options = parser.parse_args()
    table = Table("measured", "pass-through", "graceful_asgi", "difference", "ratio")
    plain, ours = asyncio.run(nanoseconds(options.blocks, options.calls))
    table.add_row(
        "ns per call",
        f"{plain:.0f}",
        f"{ours:.0f}",
        f"{ours - plain:+.0f} ns",
        f"{ours / plain:.2f}",
    )
    console = Console()
    if shutil.which("wrk") is None:
        console.print("wrk is not installed (Debian: apt-get install wrk): throughput not measured")
    else:
        rates: dict[str, list[float]] = {"pass_through": [], "graceful": []}
        for number in range(options.rounds):
            for name in sorted(rates, reverse=number % 2 == 0):
                rates[name].append(requests_per_second(name, options.seconds))
        plain, ours = (statistics.median(rates[name]) for name in ("pass_through", "graceful"))
        change = f"{(ours / plain - 1) * 100:+.1f} %"
        table.add_row(
            "requests/s (wrk)", f"{plain:.0f}", f"{ours:.0f}", change, f"{ours / plain:.3f}"
        )
    console.print(table)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
