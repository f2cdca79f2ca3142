"""aiohttp, run as its documentation has it: ``python -m tests.bench.peers.aiohttp_server PORT``."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


async def home(request: web.Request) -> web.StreamResponse:
    """Answer at once."""
    return web.Response(text="ok")


async def slow(request: web.Request) -> web.StreamResponse:
    """Answer after 2 s."""
    await asyncio.sleep(2)
    return web.Response(text="ok")


async def stream(request: web.Request) -> web.StreamResponse:
    """Answer in pieces, over 2 s."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(20):
        await response.write(b"ok")
        await asyncio.sleep(0.1)
    return response


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/", home), web.get("/slow", slow), web.get("/stream", stream)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
