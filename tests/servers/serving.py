"""uvicorn in the test's own loop, with an app that says what it sees. No middleware here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from graceful_asgi.types import Receive, Scope, Send

PATIENCE = 10.0


async def eventually(condition: Callable[[], object], *, within: float = PATIENCE) -> None:
    """Return once *condition* holds: for what uvicorn announces to nobody."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within} s: {condition}")
        await asyncio.sleep(0.002)


class App:
    """Answers every request; calls `look` with each scope first, and waits while `hold` is set."""

    def __init__(self, look: Callable[[Scope], object] = lambda scope: None) -> None:
        self.look = look
        self.seen: list[tuple[str, object]] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((scope["type"], self.look(scope)))
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        if scope["path"] == "/hold":
            await self.release.wait()
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"seen"})


def listening_socket() -> socket.socket:
    """A listener on a port of its own, so that nothing has to wait for "started"."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener


def config(app: object, **options: Any) -> uvicorn.Config:
    given = {"log_config": None, "ws": "websockets-sansio", "http": "httptools", **options}
    return uvicorn.Config(app, **given)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def serving(
    app: object, *, make: type[uvicorn.Server] = uvicorn.Server, **options: Any
) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve *app* for the length of a block; yield the server and its port."""
    server, listener = make(config(app, **options)), listening_socket()
    port = listener.getsockname()[1]
    task = asyncio.ensure_future(server.serve([listener]))
    try:
        await eventually(lambda: server.started or task.done())
        yield server, port
    finally:
        server.should_exit = server.force_exit = True
        for connection in tuple(server.server_state.connections):
            connection.transport.abort()
        await asyncio.wait_for(task, PATIENCE)


async def request(port: int, path: str = "/") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and write a request to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer


async def get(port: int, path: str = "/") -> None:
    """Make a whole request on a connection of its own."""
    reader, writer = await request(port, path)
    await asyncio.wait_for(reader.readuntil(b"seen"), PATIENCE)
    writer.close()
    await writer.wait_closed()
