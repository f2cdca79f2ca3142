"""The options that are set on a socket, and the figures that the kernel gives of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.network import (
    CLIENT,
    SERVER,
    SERVER_IPV6,
    UNPRIVILEGED,
    WITHOUT_CAPABILITIES,
    Network,
    need_unprivileged,
    over,
)
from support.polling import PATIENCE, wait_until

from graceful_asgi._servers.handshakes import HandshakeTable
from graceful_asgi._servers.tcp import (
    accept_queue_length,
    can_be_undone,
    drop_new_connections,
    lift_limits,
    refuse_new_connections,
    round_trip_time,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other kernel can")

slow = over(0.08)


def transport(sock: socket.socket) -> Any:
    """Return what has the one method of a transport that is used here."""
    return SimpleNamespace(get_extra_info=lambda name: sock)


def listening(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, dualstack_ipv6=False)
    listener.settimeout(PATIENCE)
    return listener


@contextlib.contextmanager
def connecting(
    net: Network, listener: socket.socket
) -> Iterator[tuple[socket.socket, contextlib.ExitStack]]:
    """Yield a client whose first packet has come, and what holds its second one until closed."""
    with HandshakeTable() as table, net.on_client(), contextlib.ExitStack() as clients:
        while True:
            client = clients.enter_context(socket.socket(listener.family))
            client.setblocking(False)
            client.connect_ex(listener.getsockname()[:2])
            wait_until(
                lambda: (
                    table.any_under_way(listener, for_at_least=0) or accept_queue_length(listener)
                )
            )
            with contextlib.ExitStack() as held:
                held.enter_context(net.held())
                if table.any_under_way(listener, for_at_least=0):
                    yield client, held
                    return
            # This process stood still until the handshake was over: the next client is caught.
            listener.accept()[0].close()


@slow
@pytest.mark.parametrize("host", [SERVER, SERVER_IPV6])
def test_a_handshake_under_way_survives_the_refusal_and_a_new_one_does_not_begin(
    network: Network, host: str
) -> None:
    with network.on_server(), listening(host) as listener, connecting(network, listener) as begun:
        client, held = begun
        assert refuse_new_connections(listener)
        held.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.getsockname()[:2], PATIENCE)
        accepted, _ = listener.accept()
        client.send(b"received")
        accepted.settimeout(PATIENCE)
        assert accepted.recv(10) == b"received"
        accepted.close()


@slow
@pytest.mark.parametrize("host", [SERVER, SERVER_IPV6])
def test_a_connection_made_from_a_listener_that_drops_packets_has_its_limit_lifted(
    network: Network, host: str
) -> None:
    with network.on_server(), listening(host) as listener, connecting(network, listener) as begun:
        client, held = begun
        assert drop_new_connections(listener)
        held.close()
        accepted, _ = listener.accept()
        client.send(b"repeated until it is received")
        accepted.settimeout(2 * network.delay)
        with pytest.raises(TimeoutError):
            accepted.recv(100)
        lift_limits(accepted)
        accepted.settimeout(PATIENCE)
        assert accepted.recv(100) == b"repeated until it is received"
        accepted.close()


@slow
@pytest.mark.parametrize("host", [SERVER, SERVER_IPV6])
def test_a_handshake_is_in_the_kernels_table_until_it_is_over(network: Network, host: str) -> None:
    with (
        network.on_server(),
        listening(host) as listener,
        listening(host) as other,
        HandshakeTable() as table,
    ):
        assert not table.any_under_way(listener, for_at_least=0)
        with connecting(network, listener) as (_, held):
            assert table.any_under_way(listener, for_at_least=0)
            assert not table.any_under_way(listener, for_at_least=0.9), "it has just begun"
            assert not table.any_under_way(other, for_at_least=0)
            held.close()
            listener.accept()[0].close()
            assert not table.any_under_way(listener, for_at_least=0)


@slow
def test_the_round_trip_is_that_of_the_network(network: Network) -> None:
    with network.on_server(), listening(SERVER) as listener, network.on_client():
        client = socket.create_connection(listener.getsockname(), PATIENCE)
        accepted, _ = listener.accept()
        assert 2 * network.delay <= round_trip_time(transport(accepted)) < 10 * network.delay
        client.close()
        assert accepted.getpeername()[0] == CLIENT
        accepted.close()


def test_a_unix_listener_refuses_new_connections_and_gives_those_that_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as waiting,
        socket.socket(socket.AF_UNIX) as late,
    ):
        listener.bind(path)
        listener.listen()
        waiting.connect(path)
        assert refuse_new_connections(listener)
        with pytest.raises(ConnectionRefusedError):
            late.connect(path)
        accepted, _ = listener.accept()
        with accepted:
            waiting.send(b"received")
            assert accepted.recv(10) == b"received"


def test_a_unix_socket_has_no_round_trip_and_none_that_is_closed() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert round_trip_time(transport(one)) == 0
    assert round_trip_time(transport(one)) == 0


WITHOUT_PRIVILEGE = """
import socket
from graceful_asgi._servers.tcp import *
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(can_be_undone(listener), drop_new_connections(listener))
    lift_limits(listener)
    socket.create_connection(listener.getsockname(), 5).close()
    print(refuse_new_connections(listener), refuse_new_connections(listener))
    try:
        socket.create_connection(listener.getsockname(), 5)
    except ConnectionRefusedError:
        print("refused")
"""


@pytest.mark.parametrize("command", [WITHOUT_CAPABILITIES, UNPRIVILEGED], ids=["root", "nobody"])
def test_without_a_privilege_a_refusal_is_for_good(command: tuple[str, ...]) -> None:
    need_unprivileged()
    ran = subprocess.run(
        [*command, sys.executable, "-c", WITHOUT_PRIVILEGE],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert ran.stdout.splitlines() == ["False True", "True True", "refused"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_RAW")
def test_with_the_privilege_it_is_undone() -> None:
    with listening("127.0.0.1") as listener:
        assert can_be_undone(listener)
        assert refuse_new_connections(listener)
        lift_limits(listener)
        socket.create_connection(listener.getsockname(), PATIENCE).close()
