"""The time of a request in uvicorn and a framework, without network and kernel: `make bench`.

One process hands requests to uvicorn's protocol, and takes the answers from it: without a
middleware, with one that does nothing, and with ours, in turn and in short blocks. So another
program disturbs a few blocks, and two processes with their memory laid out differently do not
enter into it. Writes a table into docs/explanation/cost.md. Not to be imported by a program that
goes on: it loads uvicorn, the framework and this package three times.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from . import page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIANTS: Final = ("plain", "pass-through", "graceful")
FRAMEWORKS: Final = ("Starlette", "FastAPI")
PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "starlette", "fastapi")
LOADED_ANEW: Final = frozenset(("uvicorn", "starlette", "fastapi", "graceful_asgi", "tests"))
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BLOCK: Final = 10
"""Requests in a row."""
WARM_UP: Final = 30
"""Blocks that are not measured: Python adapts its byte codes."""


class Transport(asyncio.Transport):
    """A connection that leads nowhere."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50000)})

    def write(self, data: Any) -> None:
        """Drop what the server writes."""

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        """Do nothing: it never paused."""


class Served:
    """A server's end of a connection, with modules of its own.

    From Python 3.11 on byte code adapts itself to what it calls. In a framework that several
    middlewares share it would be adapted to none.
    """

    def __init__(self, framework: str, variant: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in LOADED_ANEW]:
            del sys.modules[name]
        os.environ.update(BENCH_FRAMEWORK=framework, BENCH_MIDDLEWARE=variant)
        uvicorn: Any = importlib.import_module("uvicorn")
        config = uvicorn.Config(
            importlib.import_module("tests.bench.wrapped").make(), access_log=False
        )
        config.load()
        state = importlib.import_module("uvicorn.server").ServerState()
        state.default_headers = [(b"date", b"now"), (b"server", b"uvicorn")]
        self._protocol = config.http_protocol_class(config, state, {})
        self._protocol.connection_made(Transport())

    async def block(self) -> float:
        """Return the microseconds of a request, over a block of them."""
        protocol = self._protocol
        start = time.perf_counter_ns()
        for _ in range(BLOCK):
            protocol.data_received(REQUEST)
            (task,) = protocol.tasks
            await task
        return (time.perf_counter_ns() - start) / BLOCK / 1000


async def measure(framework: str, blocks: int) -> dict[str, list[float]]:
    """Return the microseconds of a request in each of *blocks*, by the middleware."""
    served = {variant: Served(framework, variant) for variant in VARIANTS}
    for _ in range(WARM_UP):
        for each in served.values():
            await each.block()
    tick()
    measured: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(blocks):
        for variant, each in served.items():
            measured[variant].append(await each.block())
    return measured


def tick() -> None:
    """Do what uvicorn's ticks do for the middleware: no request asks the clock."""
    for each in gc.get_objects():
        if type(each).__name__ == "InFlight":
            each.tick()


def table(measured: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return the medians of what a middleware adds, with their quartiles. By framework."""
    rows = []
    for framework, blocks in measured.items():
        plain = blocks["plain"]
        added = []
        for variant in VARIANTS[1:]:
            differences = [b - a for a, b in zip(plain, blocks[variant], strict=True)]
            low, middle, high = statistics.quantiles(differences, n=4)
            added.append(f"{middle:+.2f} us ({low:+.2f} to {high:+.2f})")
        rows.append((framework, f"{statistics.median(plain):.1f} us", *added))
    heads = ("framework", "alone", "one that does nothing", "`GracefulMiddleware`")
    return page.table(heads, rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="The time of a request, without the network.")
    parser.add_argument("--blocks", type=int, default=20000, help="blocks of 10 requests")
    options = parser.parse_args()
    run: Any = asyncio.run
    try:
        import uvloop

        run = uvloop.run
    except ImportError:  # uvicorn takes asyncio then
        pass
    measured = {framework: run(measure(framework, options.blocks)) for framework in FRAMEWORKS}
    parts = (
        f"{options.blocks:,} blocks of {BLOCK} requests on {page.machine(*PACKAGES)}",
        table(measured),
    )
    sys.stdout.write("\n\n".join(parts) + "\n")
    page.put("networkless", *parts)


if __name__ == "__main__":
    main()
