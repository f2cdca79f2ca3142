"""The loss-free close: what the kernel has completed and nobody has accepted is handed over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from support.polling import PATIENCE, eventually, wait_until

from graceful_asgi._servers import listener as module
from graceful_asgi._servers.descriptors import SpareDescriptors
from graceful_asgi._servers.listener import Others, accept_again, close_listeners
from graceful_asgi._servers.tcp import refuse_new_connections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def closed(servers: list[asyncio.base_events.Server]) -> list[socket.socket]:
    """Close the listeners of *servers*, and return what was in their queues."""
    return [taken async for taken in close_listeners(servers, SpareDescriptors())]


def connect(address: int | str, *, within: float = 5.0) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(family)
    client.settimeout(within)
    try:
        client.connect(address if isinstance(address, str) else ("127.0.0.1", address))
    except OSError:
        client.close()
        raise
    return client


async def listen(
    kind: str, directory: Path
) -> tuple[asyncio.base_events.Server, int | str, list[asyncio.WriteTransport]]:
    """A server, its address, and the connections that its loop has accepted by itself."""
    taken: list[asyncio.WriteTransport] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken.append(cast("asyncio.WriteTransport", transport))

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
        for connection in accepted:
            connection.settimeout(PATIENCE)
        assert {connection.recv(100) for connection in accepted} <= {b"written before the close"}
        for connection in accepted:
            connection.sendall(b"answer")
        wait_until(lambda: len(readable(clients)) == len(accepted))
        assert all(client.recv(100) == b"answer" for client in readable(clients))
    finally:
        for sock in (*clients, *accepted):
            sock.close()
        for transport in taken:
            transport.abort()


def readable(clients: list[socket.socket]) -> list[socket.socket]:
    return select.select(clients, [], [], 0)[0]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_what_the_loop_has_accepted_has_its_protocol_once_the_listener_is_closed(
    kind: str, tmp_path: Path
) -> None:
    """Else the drain may find no connection, end, and answer the first request with a 503."""
    server, address, taken = await listen(kind, tmp_path)

    async def close_and_count() -> int:
        accepted = await closed([server])
        count = len(accepted) + len(taken)
        for connection in accepted:
            connection.close()
        return count

    clients = [connect(address) for _ in range(20)]
    # The loop looks at its sockets between this step and the first one of the task.
    assert await asyncio.ensure_future(close_and_count()) == 20
    for transport in taken:
        transport.close()
    for client in clients:
        client.close()


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
        transport.abort()


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
        transport.abort()


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


linux = pytest.mark.skipif(sys.platform != "linux", reason="no other kernel can")
MIN_TTL = (socket.IPPROTO_IP, 21)


@linux
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_copy_that_a_forked_child_holds_is_refused_all_the_same(
    kind: str, tmp_path: Path
) -> None:
    """A proxy that is refused tries the next server now; one that nobody answers, after seconds."""
    server, address, _ = await listen(kind, tmp_path)
    with socket.socket(fileno=os.dup(server.sockets[0].fileno())):
        closing = close_listeners([server], SpareDescriptors(), others=answering("never"))
        assert [taken async for taken in closing] == []
        with pytest.raises(ConnectionRefusedError):
            connect(address)


@linux
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_the_queue_outlives_the_refusal(kind: str, tmp_path: Path) -> None:
    server, address, _ = await listen(kind, tmp_path)
    (listening,) = server.sockets
    with (
        socket.socket(listening.family, fileno=os.dup(listening.fileno())) as listener,
        connect(address) as client,
    ):
        assert refuse_new_connections(listener)
        assert refuse_new_connections(listener), "the second of two workers"
        client.sendall(b"written after the refusal")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100) == b"written after the refusal"
    server.close()


class answering:
    """Gives these answers one after the other, the last one for ever."""

    def __init__(self, *answers: Others) -> None:
        self.left = list(answers)
        self._last: Others = answers[-1]

    def __call__(self) -> Others:
        return self.left.pop(0) if self.left else self._last


async def test_connections_are_accepted_until_it_is_decided_who_goes_on(tmp_path: Path) -> None:
    server, address, _ = await listen("tcp", tmp_path)
    decided: list[Others] = ["undecided"]
    accepted: list[socket.socket] = []

    async def close() -> None:
        closing = close_listeners([server], SpareDescriptors(), others=lambda: decided[0])
        async for connection in closing:
            accepted.append(connection)

    closing = asyncio.ensure_future(close())
    clients = []
    await eventually(lambda: not server.is_serving())
    for number in range(3):
        clients.append(connect(address))
        await eventually(partial(has_length, accepted, number + 1))
    decided[0] = "serve"
    await asyncio.wait_for(closing, PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        connect(address)
    for sock in (*clients, *accepted):
        sock.close()


def has_length(accepted: list[socket.socket], length: int) -> bool:
    return len(accepted) == length


@linux
@pytest.mark.parametrize("can_undo", [True, False])
async def test_what_others_may_serve_from_later_can_be_opened_again(
    can_undo: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who has a privilege, and by who has none."""
    if can_undo and os.geteuid() != 0:
        pytest.skip("needs CAP_NET_RAW")
    if not can_undo:
        monkeypatch.setattr(module, "can_be_undone", lambda listener: False)
    server, address, _ = await listen("tcp", tmp_path)
    (listening,) = server.sockets
    parents = socket.socket(fileno=os.dup(listening.fileno()))
    others = answering("none")
    closing = close_listeners([server], SpareDescriptors(), others=others)
    assert [taken async for taken in closing] == []
    with pytest.raises(ConnectionRefusedError if can_undo else TimeoutError):
        connect(address, within=0.3)
    again = await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=parents)
    accept_again([again])
    connect(address).close()
    again.close()


@linux
async def test_a_connection_that_was_made_meanwhile_is_not_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It inherits what its listener drops, and would never get a byte of its client."""
    server, address, _ = await listen("tcp", tmp_path)
    clients: list[socket.socket] = []

    def connect_and_drop(listener: socket.socket, *, for_good: bool) -> bool:
        listener.setsockopt(*MIN_TTL, 64)  # what comes over loopback has just that
        clients.append(connect(address))
        return True

    monkeypatch.setattr(module, "_keep_out", connect_and_drop)
    closing = close_listeners([server], SpareDescriptors(), others=answering("none"))
    (accepted,) = [taken async for taken in closing]
    assert accepted.getsockopt(*MIN_TTL) == 0
    for sock in (*clients, accepted):
        sock.close()


@linux
@pytest.mark.parametrize("is_followed", [True, False])
async def test_nobody_is_kept_out_where_another_server_has_come_in_the_meantime(
    is_followed: bool, tmp_path: Path
) -> None:
    """Other things run on the loop while it closes, and may hold it up for as long as they like."""
    server, address, _ = await listen("tcp", tmp_path)
    followers: list[bool] = []
    asyncio.get_running_loop().call_soon(followers.append, is_followed)
    with socket.socket(fileno=os.dup(server.sockets[0].fileno())):

        def others() -> Others:
            return "serve" if any(followers) else "never"

        closing = close_listeners([server], SpareDescriptors(), others=others)
        assert [taken async for taken in closing] == []
        if is_followed:
            connect(address).close()
        else:
            with pytest.raises(ConnectionRefusedError):
                connect(address)


@contextlib.contextmanager
def no_descriptor() -> Iterator[None]:
    """Take every descriptor for the length of a block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno(), limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_without_a_descriptor_nothing_is_closed_and_that_is_said(tmp_path: Path) -> None:
    server, address, _ = await listen("tcp", tmp_path)
    with no_descriptor(), pytest.raises(OSError, match="Too many open files"):
        await closed([server])
    connect(address).close()
    server.close()


async def test_a_descriptor_that_was_put_aside_is_enough(tmp_path: Path) -> None:
    server, address, _ = await listen("tcp", tmp_path)
    spare = SpareDescriptors()
    spare.put_aside(2)
    with no_descriptor():
        assert [taken async for taken in close_listeners([server], spare)] == []
    with pytest.raises(ConnectionRefusedError):
        connect(address)
    spare.close()


async def test_connections_wait_in_the_queue_until_a_descriptor_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, address, taken = await listen("tcp", tmp_path)
    spare = SpareDescriptors()
    spare.put_aside(1)
    clients = [connect(address) for _ in range(3)]
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        stack.enter_context(no_descriptor())
        loop.call_later(0.1, stack.close)
        closing = close_listeners([server], spare, others=answering("never"))
        accepted = [connection async for connection in closing]
    assert len(accepted) + len(taken) == 3
    for sock in (*clients, *accepted):
        sock.close()
    for transport in taken:
        transport.abort()
