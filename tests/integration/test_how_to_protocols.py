"""The examples of the how-to pages for MCP and Socket.IO, used by their own clients."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.docs import how_to
from support.need import need
from support.polling import PATIENCE
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from pathlib import Path


def serving(directory: Path, page: str) -> Server:
    (directory / "example.py").write_text(how_to(page), encoding="utf-8")
    return uvicorn(directory, app="example:app", lame_duck=0.5, grace=20, cleanup=10)


def test_a_tool_call_in_flight_gets_its_answer(tmp_path: Path) -> None:
    need("mcp")
    client: Any = importlib.import_module("mcp").Client
    answers: list[str] = []

    async def call(url: str) -> None:
        async with client(url) as session:
            await session.list_tools()  # else it asks for their schemas after the answer
            answer = await session.call_tool("report", {"month": "May"})
            answers.append(answer.content[0].text)

    with serving(tmp_path, "mcp") as server:

        async def run() -> None:
            calling = asyncio.ensure_future(call(f"http://127.0.0.1:{server.port}/mcp"))
            await anyio.to_thread.run_sync(server.wait_for, "report began")
            await anyio.to_thread.run_sync(server.terminate)
            with contextlib.suppress(BaseException):  # it ends its session: refused
                await calling

        asyncio.run(run())
        assert answers == ["report of May"]
        assert server.wait() == 0


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_an_event_that_is_being_handled_is_acknowledged(tmp_path: Path, transport: str) -> None:
    need("socketio", "aiohttp", "fastapi")
    aiohttp: Any = importlib.import_module("aiohttp")
    socketio: Any = importlib.import_module("socketio")
    with serving(tmp_path, "socketio") as server:

        async def run() -> None:
            # The client leaves its own session open where the server is faster than `shutdown`.
            async with aiohttp.ClientSession() as session:
                client = socketio.AsyncClient(reconnection=False, http_session=session)
                await client.connect(f"http://127.0.0.1:{server.port}", transports=[transport])
                work = asyncio.ensure_future(client.call("work", 1.0, timeout=PATIENCE))
                await anyio.to_thread.run_sync(server.wait_for, "work began")
                await anyio.to_thread.run_sync(server.terminate)
                assert await work == "worked"
                await client.shutdown()

        asyncio.run(run())
        assert server.wait() == 0
        assert "Traceback" not in server.log
