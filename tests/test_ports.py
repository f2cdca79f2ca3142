"""A port for a server under test is kept for that server until the tests end."""

from __future__ import annotations

import socket
import struct
import sys

import pytest
from support.ports import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the rule is Linux's")


def test_a_server_gets_its_port_again_and_again_and_nobody_else_does() -> None:
    port = free_port()
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)) as server:
            client = socket.create_connection(("127.0.0.1", port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # a reset: no TIME_WAIT holds the port
            server.accept()[0].close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        # A client's own end, and whoever asks for any port, needs one that nobody has bound.
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, ""), (socket.AF_INET6, "::")], ids=["IPv4", "IPv6"]
)
def test_a_server_may_listen_on_all_addresses(
    family: socket.AddressFamily, host: str, option: int
) -> None:
    port = free_port()
    with socket.socket(family) as server:
        server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind((host, port))
        server.listen()
        for _ in range(20):
            socket.create_connection(("127.0.0.1", port)).close()


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(100)]
    assert len(set(ports)) == 100
