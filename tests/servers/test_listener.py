"""The loss-free close: what the kernel has completed and nobody has accepted is handed over."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from graceful_asgi._servers.listener import close_listeners

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def closed(servers: list[asyncio.base_events.Server]) -> list[socket.socket]:
    """Close the listeners of *servers*, and return what was in their queues."""
    return [taken async for taken in close_listeners(servers)]


def connect(address: int | str) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(family)
    client.settimeout(5)
    try:
        client.connect(address if isinstance(address, str) else ("127.0.0.1", address))
    except OSError:
        client.close()
        raise
    return client


async def listen(
    kind: str, directory: Path
) -> tuple[asyncio.base_events.Server, int | str, list[asyncio.BaseTransport]]:
    """A server, its address, and the connections that its loop has accepted by itself."""
    taken: list[asyncio.BaseTransport] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken.append(transport)

    loop = asyncio.get_running_loop()
    if kind == "unix":
        path = str(directory / "s")
        return await loop.create_unix_server(Protocol, path), path, taken
    server = await loop.create_server(Protocol, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], taken


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_connections_that_nobody_has_accepted_are_returned(kind: str, tmp_path: Path) -> None:
    server, address, taken = await listen(kind, tmp_path)
    # No await from the connects to the close: the loop has had no chance to accept them.
    clients = [connect(address) for _ in range(20)]
    for client in clients:
        client.sendall(b"written before the close")
    accepted = await closed([server])
    try:
        await asyncio.sleep(0)
        # asyncio finishes what it has begun to accept, so a few may be the server's own.
        assert len(accepted) + len(taken) == 20
        assert all(not connection.getblocking() for connection in accepted)
        assert {connection.recv(100) for connection in accepted} <= {b"written before the close"}
        for connection in accepted:
            connection.setblocking(True)
            connection.sendall(b"answer")
        answered = [client for client in clients if readable(client)]
        assert len(answered) == len(accepted)
    finally:
        for sock in (*clients, *accepted):
            sock.close()
        for transport in taken:
            transport.abort()  # type: ignore[attr-defined]


def readable(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        return client.recv(100) == b"answer"
    except TimeoutError:
        return False


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_the_listener_refuses_from_then_on(kind: str, tmp_path: Path) -> None:
    server, address, _ = await listen(kind, tmp_path)
    assert await closed([server]) == []
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        connect(address)
    assert not server.is_serving()


async def test_every_listener_of_every_server_is_emptied(tmp_path: Path) -> None:
    listening = [await listen("tcp", tmp_path) for _ in range(3)]
    clients = [connect(address) for _, address, _ in listening for _ in range(4)]
    accepted = await closed([server for server, _, _ in listening])
    await asyncio.sleep(0)
    taken = [transport for _, _, transports in listening for transport in transports]
    assert len(accepted) + len(taken) == 12
    for sock in (*clients, *accepted):
        sock.close()
    for transport in taken:
        transport.abort()  # type: ignore[attr-defined]


async def test_closing_twice_finds_nothing_and_raises_nothing(tmp_path: Path) -> None:
    server, _, _ = await listen("tcp", tmp_path)
    await closed([server])
    assert await closed([server]) == []


async def test_a_client_that_has_left_the_queue_does_not_end_the_emptying(tmp_path: Path) -> None:
    server, address, taken = await listen("tcp", tmp_path)
    first, gone, last = connect(address), connect(address), connect(address)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    gone.close()
    accepted = await closed([server])
    await asyncio.sleep(0)
    assert len(accepted) + len(taken) >= 2
    for sock in (first, last, *accepted):
        sock.close()
    for transport in taken:
        transport.abort()  # type: ignore[attr-defined]


async def test_a_copy_of_the_listener_in_another_process_stays_open(tmp_path: Path) -> None:
    """uvicorn's parent keeps one for its workers: only ours is closed."""
    server, address, _ = await listen("tcp", tmp_path)
    (listening,) = server.sockets
    with socket.fromfd(listening.fileno(), listening.family, listening.type) as parents:
        assert await closed([server]) == []
        connect(address).close()
        parents.close()
    with pytest.raises(ConnectionRefusedError):
        connect(address)


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel has deaf listeners")
@pytest.mark.parametrize("is_followed", [True, False])
async def test_a_listener_is_not_made_deaf_to_who_has_come_in_the_meantime(
    is_followed: bool, tmp_path: Path
) -> None:
    """Other things run on the loop while it closes, and may hold it up for as long as they like."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip("uvloop closes without going round")
    server, _, _ = await listen("tcp", tmp_path)
    followers: list[bool] = []
    loop.call_soon(followers.append, is_followed)
    with socket.socket(fileno=os.dup(server.sockets[0].fileno())) as listener:
        assert not [
            taken async for taken in close_listeners([server], is_last=lambda: not any(followers))
        ]
        assert (listener.getsockopt(socket.IPPROTO_IP, 21) == 0) is is_followed
