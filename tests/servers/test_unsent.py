"""Clients that read slowly: what waits for them is seen, and is not cut while there is time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from support.certificate import certificate_options
from support.client import Client
from support.polling import eventually
from support.server import uvicorn_in_loop

from graceful_asgi._servers import connections as module
from graceful_asgi._servers.connections import Connections
from graceful_asgi._servers.unsent import unsent_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import uvicorn

    from graceful_asgi.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

HTTP = ["h11", "httptools", "zttp"]
WS = ["websockets-sansio", "wsproto"]
TLS = [pytest.param(False, id="plain"), pytest.param(True, id="tls")]
FAR = 3600.0
PIECE = bytes(4096)
NARROW = 4096
"""Bytes of a socket's buffer: the kernel takes little more than that."""

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class FillingApp:
    """Sends until its client takes no more, and a little of it waits in the server; then ends."""

    def __init__(self) -> None:
        self.server: uvicorn.Server | None = None
        self.connection: Any = None
        self.sent = 0
        self.has_ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.server is not None
        (self.connection,) = self.server.server_state.connections
        transport = self.connection.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
        await receive()
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while not unsent_bytes(transport):
                await send({"type": "websocket.send", "bytes": PIECE})
                self.sent += len(PIECE)
            await send({"type": "websocket.close", "code": 1012})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not unsent_bytes(transport):
                body = {"type": "http.response.body", "body": PIECE, "more_body": True}
                await send(body)
                self.sent += len(PIECE)
            await send({"type": "http.response.body"})
        self.has_ended = True


@contextlib.asynccontextmanager
async def filled(
    request: bytes, directory: Path, *, tls: bool, **options: Any
) -> AsyncIterator[tuple[FillingApp, Connections, Client]]:
    """Serve one client, which does not read yet, until its answer has left the app."""
    app = FillingApp()
    if tls:
        options.update(certificate_options(directory))
    async with uvicorn_in_loop(app, lifespan="off", **options) as (server, port):
        app.server = server
        # A client on a loop would decrypt 256 kB ahead of its reader.
        context = ssl._create_unverified_context() if tls else None
        client = await asyncio.to_thread(Client, port, tls=context, receive_buffer=NARROW)
        client.send(request)
        await eventually(lambda: app.has_ended)
        try:
            yield app, Connections(server), client  # type: ignore[arg-type]  # it has more names
        finally:
            client.close()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the first sweep abort a connection that closes."""
    monkeypatch.setattr(module, "PATIENCE", {**module.PATIENCE, "closing": -10.0})


async def everything(client: Client, *, until: bytes | None = None) -> bytes:
    """Read to the end of what the client gets, or to *until*, on a thread."""
    if isinstance(client.socket, ssl.SSLSocket):
        # Else a cut looks like an end. The type stub leaves it out.
        client.socket.suppress_ragged_eofs = False  # type: ignore[attr-defined]

    def read() -> bytes:
        found = b""
        while (until is None or not found.endswith(until)) and (part := client.socket.recv(65536)):
            found += part
        return found

    return await asyncio.to_thread(read)


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("http", HTTP)
async def test_an_answer_that_waits_for_a_slow_reader_is_not_cut_as_its_connection_closes(
    http: str, tls: bool, tmp_path: Path
) -> None:
    async with filled(REQUEST, tmp_path, tls=tls, http=http) as (app, swept, client):
        assert app.connection.transport.is_closing()
        assert 0 < unsent_bytes(app.connection.transport) < 65536, "TLS itself shows nothing of it"
        await swept.sweep(FAR)
        await swept.sweep(FAR)
        answer = await everything(client)
        assert answer.endswith(b"\r\n0\r\n\r\n")
        assert answer.count(0) == app.sent


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("ws", WS)
async def test_messages_before_a_close_reach_a_slow_reader(
    ws: str, tls: bool, tmp_path: Path
) -> None:
    options = {"ws": ws, "ws_per_message_deflate": False}
    async with filled(UPGRADE, tmp_path, tls=tls, **options) as (app, swept, client):
        assert unsent_bytes(app.connection.transport)
        await swept.sweep(FAR)
        await swept.sweep(FAR)
        close = b"\x88\x02" + (1012).to_bytes(2, "big")
        answer = await everything(client, until=close)
        assert answer.endswith(close)
        assert answer.count(b"\x82\x7e\x10\x00" + PIECE) == app.sent // len(PIECE)


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("ws", [None, *WS])
async def test_what_waits_for_a_slow_reader_at_the_end_is_cut_visibly_and_counted(
    ws: str | None, tls: bool, tmp_path: Path
) -> None:
    request = REQUEST if ws is None else UPGRADE
    options = {} if ws is None else {"ws": ws, "ws_per_message_deflate": False}
    async with filled(request, tmp_path, tls=tls, **options) as (_, swept, client):
        assert swept.cut_answers() == 1
        await eventually(lambda: not swept)
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            await everything(client)
