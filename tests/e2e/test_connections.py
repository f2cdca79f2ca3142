"""Connections in every state that a drain can find them in."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get, is_refused
from support.polling import PATIENCE, wait_until
from support.server import ENOUGH, Server, uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

LOOPS = ["asyncio", "uvloop"]
HTTP = ["h11", "httptools", "zttp"]
MEGABYTE = 1 << 20


def frozen_while_draining(server: Server) -> None:
    """Stop the process, and have it find SIGINT (no lame duck) when it goes on."""
    os.kill(server.pid, signal.SIGSTOP)
    wait_until(lambda: " T " in stat(server.pid), "the process is stopped")
    server.signal(signal.SIGINT)


@pytest.fixture
def socket_path() -> Iterator[str]:
    """The name of a UNIX socket has 107 bytes at most; `tmp_path` is too long for it."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/s"


def stat(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("written", [True, False], ids=["request written", "request later"])
def test_a_connection_that_nobody_has_accepted_at_the_listener_close_is_served(
    tmp_path: Path, loop: str, written: bool
) -> None:
    """The kernel has completed the handshake: to the client it is a connection like any other.

    A plain close resets it. The server is stopped (SIGSTOP) so that these are in the queue.
    """
    with uvicorn(tmp_path, loop=loop, grace=5) as server:
        frozen_while_draining(server)
        clients = [Client(server.port) for _ in range(10)]
        try:
            if written:
                for client in clients:
                    client.request("/")
            os.kill(server.pid, signal.SIGCONT)
            if not written:
                server.wait_for(r"\]: draining \(")
                for client in clients:
                    client.request("/")
            answers = [client.response() for client in clients]
        finally:
            for client in clients:
                client.close()
        assert {answer.status for answer in answers} == {200}
        assert all(answer.closes for answer in answers)
        assert server.wait() == 0


@pytest.mark.parametrize("http", HTTP)
def test_an_idle_keep_alive_connection_is_closed_at_the_end_of_the_lame_duck_and_not_before(
    tmp_path: Path, http: str
) -> None:
    with (
        uvicorn(tmp_path, http=http, lame_duck=1.0, grace=10) as server,
        Client(server.port) as client,
    ):
        assert client.get("/").status == 200
        server.terminate()
        assert client.ends()
        assert server.seconds_since_signal() >= 1.0
        assert server.wait(6) == 0


@pytest.mark.parametrize("http", HTTP)
def test_a_request_already_in_the_kernel_of_an_idle_connection_is_served(
    tmp_path: Path, http: str
) -> None:
    """It looks idle to uvicorn, which would reset it: the keep-alive race."""
    with uvicorn(tmp_path, http=http, grace=10) as server:
        clients = [Client(server.port) for _ in range(10)]
        try:
            for client in clients:
                assert not client.get("/").closes
            frozen_while_draining(server)
            for client in clients:
                client.request("/")
            os.kill(server.pid, signal.SIGCONT)
            answers = [client.response() for client in clients]
        finally:
            for client in clients:
                client.close()
        assert {answer.status for answer in answers} == {200}
        assert server.wait() == 0


@pytest.mark.parametrize("http", HTTP)
def test_a_new_connection_and_half_a_request_head_are_given_a_moment_after_the_listener_close(
    tmp_path: Path, http: str
) -> None:
    """The client has connected, so its request is on its way; who stays silent is closed."""
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    with (
        uvicorn(tmp_path, http=http, lame_duck=0.2, grace=10) as server,
        Client(server.port) as new,
        Client(server.port) as silent,
        Client(server.port) as completes,
        Client(server.port) as reused,
        Client(server.port) as stays,
    ):
        assert reused.get("/").status == 200
        for client in (completes, reused, stays):
            client.send(head)
        server.terminate()
        server.wait_for(r"\]: draining \(")
        time.sleep(0.3)  # what is tested: that much later
        new.request("/")
        for client in (completes, reused):
            client.send(b"\r\n")
        answer = new.response()
        assert answer.status == 200
        assert answer.closes
        assert completes.response().status == 200
        assert reused.response().status == 200
        assert silent.ends()
        stays.ends()  # in which way is uvicorn's choice
        assert server.wait(6) == 0


@pytest.mark.parametrize("http", HTTP)
def test_pipelined_requests_are_all_answered(tmp_path: Path, http: str) -> None:
    """Written before the signal, so before any answer could say close."""
    with (
        uvicorn(tmp_path, http=http, lame_duck=0.2, grace=5) as server,
        Client(server.port) as client,
    ):
        for path in ("/slow?s=1&name=first", "/slow?s=0.3&name=second", "/"):
            client.request(path)
        server.wait_for("slow began first")
        server.terminate()
        first = client.response()
        assert first.status == 200
        if not first.closes:
            assert client.response().status == 200
            assert client.response().status == 200
        assert server.wait() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_unix_socket_drains_as_well(
    tmp_path: Path, loop: str, socket_path: str, beside: ThreadPoolExecutor
) -> None:
    path = socket_path
    with uvicorn(tmp_path, "--uds", path, loop=loop, lame_duck=ENOUGH, grace=10) as server:
        slow = beside.submit(get, path, f"/slow?s={ENOUGH + 0.5}&name=old")
        server.wait_for("slow began old")
        server.terminate()
        assert get(path, "/").closes
        assert slow.result().status == 200
        assert server.wait() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_unix_connection_that_nobody_has_accepted_is_served(
    tmp_path: Path, loop: str, socket_path: str
) -> None:
    path = socket_path
    with uvicorn(tmp_path, "--uds", path, loop=loop, grace=5) as server:
        frozen_while_draining(server)
        with Client(path) as client:
            client.request("/")
            os.kill(server.pid, signal.SIGCONT)
            assert client.response().status == 200
        assert server.wait() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_slow_reader_gets_its_last_byte_within_the_grace_period(
    tmp_path: Path, loop: str
) -> None:
    with (
        uvicorn(tmp_path, loop=loop, lame_duck=0.2, grace=10) as server,
        Client(server.port, receive_buffer=65536) as client,
    ):
        client.request("/big?mb=16")
        status, _ = client.head()
        server.terminate()
        server.wait_for(r"\]: draining \(")
        received = 0
        for _ in range(16):
            received += len(client.read(MEGABYTE))
            time.sleep(0.2)  # for longer than a connection may take to close
        assert (status, received) == (200, 16 * MEGABYTE)
        assert server.wait(8) == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reader_that_has_stopped_reading_is_cut_after_the_grace_period(
    tmp_path: Path, loop: str
) -> None:
    with (
        uvicorn(tmp_path, loop=loop, lame_duck=0.2, grace=1) as server,
        Client(server.port, receive_buffer=65536) as client,
    ):
        client.request("/big?mb=16")
        client.head()
        server.terminate()
        assert server.wait() == 1
        assert not server.running
        assert "1 aborted" in server.log


@pytest.mark.parametrize("http", HTTP)
def test_an_upload_under_way_completes(tmp_path: Path, http: str) -> None:
    with (
        uvicorn(tmp_path, http=http, lame_duck=0.3, grace=10) as server,
        Client(server.port) as client,
    ):
        client.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n")
        client.send(bytes(MEGABYTE // 2))
        server.wait_for("echo began")
        server.terminate()
        server.wait_for(r"\]: draining \(")
        for _ in range(8):
            client.send(bytes(MEGABYTE // 16))
            time.sleep(0.1)
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"1048576")
        assert server.wait(8) == 0


@pytest.mark.parametrize("http", HTTP)
def test_an_early_answer_does_not_break_the_upload_it_answers(tmp_path: Path, http: str) -> None:
    """With the body unread, a close would reset the client before it has read the answer."""
    with (
        uvicorn(tmp_path, http=http, lame_duck=60, grace=10) as server,
        Client(server.port) as client,
    ):
        server.terminate()
        client.send(b"POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n")
        for _ in range(8):
            client.send(bytes(MEGABYTE))
            time.sleep(0.02)
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"early")
        server.signal(signal.SIGINT)  # the rest of the lame duck shows nothing
        assert server.wait(8) == 0


@pytest.mark.parametrize("http", HTTP)
def test_an_early_answer_does_not_break_the_upload_after_the_listener_close(
    tmp_path: Path, http: str
) -> None:
    with (
        uvicorn(tmp_path, http=http, lame_duck=0.1, grace=10) as server,
        Client(server.port) as client,
    ):
        client.send(
            b"POST /early?s=0.6 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n"
        )
        server.terminate()
        server.wait_for(r"\]: draining \(")
        for _ in range(16):
            client.send(bytes(MEGABYTE // 2))
            time.sleep(0.06)
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"early")
        assert server.wait(8) == 0


def test_a_client_that_leaves_during_the_drain_ends_its_request(tmp_path: Path) -> None:
    with uvicorn(tmp_path, lame_duck=0.2, grace=10) as server:
        with Client(server.port) as client:
            client.request("/stream?n=10000")
            client.head()
            server.terminate()
            server.wait_for(r"\]: draining \(")
            client.reset()
        assert server.wait(5) == 0


def test_a_flood_of_connections_at_the_listener_close_does_not_keep_it_open(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with uvicorn(tmp_path, lame_duck=0.2, grace=10) as server:
        server.terminate()

        def flood() -> int:
            connects = 0
            while not is_refused(server.port):
                connects += 1
            return connects

        floods = [beside.submit(flood) for _ in range(8)]
        for future in floods:
            future.result(timeout=PATIENCE)
        assert server.wait() == 0
