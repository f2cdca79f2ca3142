"""Drains as clients see them: Socket.IO, GraphQL subscriptions, token streams."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from support.need import need
from support.polling import PATIENCE

from .programs_under_test import Program, assert_balanced, assert_quiet, server_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The clients are built on asyncio."""
    return "asyncio"


async def exit_code(server: Server) -> int:
    return await anyio.to_thread.run_sync(server.wait)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_socketio_acknowledges_what_it_was_sent_before_the_stop(
    tmp_path: Path, transport: str
) -> None:
    """Its handlers run in tasks of their own while the WebSocket waits for the next message."""
    server = await socketio_under_stop(tmp_path, "inside", transport)
    assert await exit_code(server) == 0
    assert "1 completed" in server.log
    assert_quiet(server.log)


async def test_socketio_around_the_middleware_is_named_and_its_polls_are_answered(
    tmp_path: Path,
) -> None:
    """A WebSocket there is closed as plain uvicorn closes it: nobody looks for a boundary."""
    server = await socketio_under_stop(tmp_path, "outside", "polling", grace=2)
    assert server.count("GracefulMiddleware is inside of socketio.asgi.ASGIApp") == 1
    assert await exit_code(server) in (0, 1)  # a poll that nobody sees is still waiting


async def socketio_under_stop(
    directory: Path, where: str, transport: str, **periods: float
) -> Server:
    """Stop a server while an event of a client's is being handled; the client gets its answer."""
    need("socketio", "aiohttp")
    import aiohttp
    import socketio  # type: ignore[import-untyped,import-not-found,unused-ignore]  # untyped, and not everywhere

    server = server_of(Program(f"socketio_app:{where}"), directory, **periods)
    await anyio.to_thread.run_sync(server.start)
    try:
        # The client leaves a session of its own open where the server was faster than `shutdown`.
        async with aiohttp.ClientSession() as session:
            client: Any = socketio.AsyncClient(reconnection=False, http_session=session)
            await client.connect(f"http://127.0.0.1:{server.port}", transports=[transport])
            work = asyncio.ensure_future(client.call("work", 1.0, timeout=PATIENCE))
            await anyio.to_thread.run_sync(server.wait_for, "work began")
            server.signal(signal.SIGTERM)
            assert await work == "worked"
            await client.shutdown()
            await exit_code(server)
    finally:
        server.kill()
    return server


async def test_a_subscription_is_closed_between_two_of_its_results(tmp_path: Path) -> None:
    """While one task of it waits for messages, another sends, for ever."""
    need("strawberry", "websockets")
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed
    from websockets.typing import Subprotocol

    protocol = Subprotocol("graphql-transport-ws")
    async with server_of(Program("strawberry_app:app"), tmp_path, grace=4) as server:
        async with connect(
            f"ws://127.0.0.1:{server.port}/graphql", subprotocols=[protocol]
        ) as client:
            await client.send(json.dumps({"type": "connection_init"}))
            assert json.loads(await client.recv())["type"] == "connection_ack"
            query = {"query": "subscription { count }"}
            await client.send(json.dumps({"id": "1", "type": "subscribe", "payload": query}))
            received: list[int] = []

            async def receive() -> None:
                async for text in client:
                    message = json.loads(text)
                    assert message["type"] == "next"
                    received.append(message["payload"]["data"]["count"])
                    if len(received) == 3:
                        server.signal(signal.SIGTERM)

            with pytest.raises(ConnectionClosed):
                await receive()
            assert client.close_code == 1012
        assert received == list(range(len(received)))
        assert await exit_code(server) == 0
        assert "1 closed" in server.log, "it is not waited for until the grace period ends"
        assert_quiet(server.log)


@pytest.mark.parametrize(
    ("app", "path"), [("vllm_like", "/v1/completions"), ("litellm_like", "/chat/completions")]
)
async def test_a_stream_of_tokens_comes_to_its_end(tmp_path: Path, app: str, path: str) -> None:
    async with (
        server_of(Program(app), tmp_path) as server,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE, trust_env=False
        ) as client,
        client.stream("POST", path) as response,
    ):
        lines = response.aiter_lines()
        first = await anext(lines)
        server.signal(signal.SIGTERM)
        received = [first, *[line async for line in lines]]
        assert [line for line in received if line][-1] == "data: [DONE]"
        assert sum("token" in line for line in received) == 20
        assert await exit_code(server) == 0
        assert_balanced(server.log)
        assert_quiet(server.log)
