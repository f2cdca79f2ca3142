"""Measure what the middleware keeps for each connection and each request in flight: `make bench`.

Servers with the middleware and without are asked how many bytes Python has in use (`tracemalloc`),
before, during and after thousands of clients: with idle connections, and with requests in flight.
Writes a table into docs/explanation/cost.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, NamedTuple

from . import page
from .served import SERVERS, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

KINDS = {"an idle connection": "/", "a request in flight": "/held"}
"""The kinds of load, each with the path to ask for it."""

NAMES = ("uvicorn", "`GracefulMiddleware`")
"""`graceful-asgi run` has the same middleware in its server."""

WARM_UP = 100
"""Clients before the first look: what they import and cache is not kept for each."""


class Growth(NamedTuple):
    """Bytes for each client."""

    held: float
    """While the clients are there."""
    kept: float
    """After a second crowd of them has gone, more than after the first."""


def measure(name: str, kind: str, clients: int) -> Growth:
    """Return the growth of a server with *clients* that hold what *kind* is."""
    # With uvicorn's 5 s the first idle connections would be gone before the last have come.
    options = ("--timeout-keep-alive", "600")
    with serving(SERVERS[name], *options, env={"PYTHONTRACEMALLOC": "1"}) as server:
        return asyncio.run(_grow(server.port, KINDS[kind], clients))


async def _grow(port: int, path: str, clients: int) -> Growth:
    async with _connected(port, path, WARM_UP):
        await _memory(port)
    before = await _settled_memory(port)
    async with _connected(port, path, clients):
        held = await _memory(port)
    # Sets and dictionaries that have grown stay as large as they were.
    after = await _settled_memory(port)
    async with _connected(port, path, clients):
        await _memory(port)
    return Growth((held - before) / clients, (await _settled_memory(port) - after) / clients)


@contextlib.asynccontextmanager
async def _connected(port: int, path: str, clients: int) -> AsyncIterator[None]:
    """Keep *clients* connections open that have asked for *path*, for the length of a block."""
    writers = []
    try:
        for _ in range(clients):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            if path == "/":
                await reader.readuntil(b"ok")
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def _memory(port: int) -> int:
    """Return the bytes in use, once the server has handled what was written before."""
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /memory HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
    return int(body)


async def _settled_memory(port: int) -> int:
    """Return the bytes in use when they no longer fall: the ends of clients take their time."""
    least, falls = await _memory(port), True
    while falls:
        await asyncio.sleep(0.2)
        now = await _memory(port)
        falls, least = now < least - 1000, min(least, now)
    return least


def compare(clients: int) -> Iterator[tuple[str, str, Growth]]:
    """Measure each server with each kind."""
    for kind in KINDS:
        for name in NAMES:
            yield kind, name, measure(name, kind, clients)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What is kept for each connection and request.")
    parser.add_argument("--clients", type=int, default=2000, help="connections at once")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    rows = [
        (kind, name, f"{growth.held:,.0f}", f"{growth.kept:,.1f}")
        for kind, name, growth in compare(options.clients)
    ]
    parts = (
        f"{options.clients:,} clients at once, {page.machine('uvicorn', 'starlette', 'httptools')}",
        page.table(("for", "server", "bytes", "bytes after its end"), rows, named=2),
    )
    sys.stdout.write("\n\n".join(parts) + "\n")
    if not options.no_write:
        page.put("memory", *parts)


if __name__ == "__main__":
    main()
