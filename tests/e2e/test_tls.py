"""TLS: its handshakes come late, and its peers may not answer a close."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from support.client import Client
from support.need import need
from support.polling import wait_until
from support.server import ENOUGH, Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

LOOPS = ["asyncio", "uvloop"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A server's key and certificate in one file, and a client's context that trusts it."""
    need("trustme")
    import trustme

    authority = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return path, context


def tls_server(
    directory: Path,
    certificate: tuple[Path, ssl.SSLContext],
    loop: str,
    *,
    lame_duck: float = 0.5,
    grace: float = 1.0,
) -> Server:
    pem = str(certificate[0])
    options = ("--ssl-certfile", pem, "--ssl-keyfile", pem)
    return uvicorn(directory, *options, loop=loop, lame_duck=lame_duck, grace=grace)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_tls_server_drains(
    tmp_path: Path,
    certificate: tuple[Path, ssl.SSLContext],
    loop: str,
    beside: ThreadPoolExecutor,
) -> None:
    tls = certificate[1]
    with (
        tls_server(tmp_path, certificate, loop, lame_duck=ENOUGH, grace=5) as server,
        Client(server.port, tls=tls) as slow,
        Client(server.port, tls=tls) as idle,
    ):
        assert idle.get("/").status == 200
        slow.request("/slow?until=go-on&name=old")
        server.wait_for("slow began old")
        server.terminate()
        with Client(server.port, tls=tls) as fresh:
            assert fresh.get("/").closes
        server.wait_for(r"\]: draining \(")
        (tmp_path / "go-on").touch()
        answer = slow.response()
        assert (answer.status, answer.closes) == (200, True)
        assert idle.ends()
        assert server.wait() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_that_ends_after_the_listener_close_is_served_and_told_to_close(
    tmp_path: Path, certificate: tuple[Path, ssl.SSLContext], loop: str
) -> None:
    with tls_server(tmp_path, certificate, loop, lame_duck=0.3, grace=10) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
            server.terminate()
            server.wait_for(r"\]: draining \(")
            time.sleep(0.3)  # what is tested: that much later
            with certificate[1].wrap_socket(plain, server_hostname="localhost") as late:
                late.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = late.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert server.wait(8) == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_tls_connection_that_nobody_has_accepted_at_the_listener_close_is_served(
    tmp_path: Path,
    certificate: tuple[Path, ssl.SSLContext],
    loop: str,
    beside: ThreadPoolExecutor,
) -> None:
    def get_slowly() -> int:
        with Client(server.port, tls=certificate[1]) as client:
            return client.get("/").status

    with tls_server(tmp_path, certificate, loop, grace=10) as server:
        os.kill(server.pid, signal.SIGSTOP)
        answers = [beside.submit(get_slowly) for _ in range(8)]
        wait_until(lambda: queued(server.port) == 8, "eight connections wait to be accepted")
        server.signal(signal.SIGINT)
        os.kill(server.pid, signal.SIGCONT)
        assert [answer.result() for answer in answers] == [200] * 8
        assert server.wait(8) == 0


def queued(port: int) -> int:
    """Return how many connections wait for the listener on *port* to accept them."""
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return int(fields[4].split(":")[1], 16)
    return 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_that_never_comes_does_not_hold_the_exit(
    tmp_path: Path, certificate: tuple[Path, ssl.SSLContext], loop: str
) -> None:
    """uvicorn itself waits for it: for ever with asyncio, from Python 3.12 on."""
    with (
        tls_server(tmp_path, certificate, loop, lame_duck=0.3, grace=1) as server,
        socket.create_connection(("127.0.0.1", server.port)),
    ):
        server.terminate()
        assert server.wait() in (0, 1)
        assert server.count("lifespan shutdown") == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_peer_that_ignores_close_notify_does_not_hold_the_exit(
    tmp_path: Path, certificate: tuple[Path, ssl.SSLContext], loop: str
) -> None:
    """asyncio waits 30 s for the answer: just what Kubernetes gives a pod."""
    with (
        tls_server(tmp_path, certificate, loop, lame_duck=0.3, grace=30) as server,
        Client(server.port, tls=certificate[1]) as deaf,
    ):
        assert deaf.get("/").status == 200
        server.terminate()
        assert server.wait(8) == 0
