"""WebSockets: when they get their 1012, and that none of them stops the drain of others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import struct
import time
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get
from support.need import need
from support.polling import PATIENCE, wait_until
from support.server import ENOUGH, Server, uvicorn

from .crowd import Crowd, listens_to, spread, talks
from .reloading import change

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from websockets.sync.client import ClientConnection

WS = ["websockets-sansio", "wsproto", "websockets"]
WS_AND_LOOP = [*((ws, "asyncio") for ws in WS), ("websockets-sansio", "uvloop")]
SERVICE_RESTART = 1012


@contextlib.contextmanager
def websocket(server: Server, path: str) -> Iterator[ClientConnection]:
    need("websockets")
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{server.port}{path}", close_timeout=1, proxy=None) as opened:
        yield opened


def close_code(opened: ClientConnection, *, within: float) -> int:
    """Read until the close, for *within* seconds at the most, and return its code."""
    from websockets.exceptions import ConnectionClosed

    until = time.monotonic() + within
    try:
        while True:
            opened.recv(timeout=max(0.0, until - time.monotonic()))
    except ConnectionClosed as closed:
        return 1006 if closed.rcvd is None else closed.rcvd.code


def echo(opened: ClientConnection, said: str) -> None:
    """Send, and read the reply, unless the close has come before it."""
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):
        opened.send(said)
        assert opened.recv(timeout=PATIENCE) == said


def raw_websocket(server: Server, path: str, *, receive_buffer: int | None = None) -> Client:
    """A WebSocket whose frames are ours to send or not to send."""
    client = Client(server.port, receive_buffer=receive_buffer)
    client.send(upgrade(path))
    try:
        status, _ = client.head()
        assert status == 101
    except BaseException:
        client.close()
        raise
    return client


def upgrade(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(0x88, struct.pack("!H", code) + reason.encode())


def text_frame(text: str) -> bytes:
    return frame(0x81, text.encode())


def frame(first: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes((first, 0x80 | len(payload))) + mask + masked


@pytest.mark.parametrize(("ws", "loop"), WS_AND_LOOP)
def test_websockets_are_closed_with_1012_within_the_lame_duck_whatever_their_handlers_wait_for(
    tmp_path: Path, ws: str, loop: str
) -> None:
    """One waits for a message, one for something else, one was opened after the signal."""
    with (
        uvicorn(tmp_path, "--ws", ws, loop=loop, lame_duck=ENOUGH, grace=60) as server,
        websocket(server, "/ws/echo") as early,
        websocket(server, "/ws/idle") as idle,
    ):
        server.terminate()
        # Each is closed at a random time of the lame duck, which may be before it is asked.
        echo(early, "still here")
        with websocket(server, "/ws/echo") as late:
            echo(late, "hello")
            for opened in (early, idle, late):
                assert close_code(opened, within=PATIENCE) == SERVICE_RESTART
        assert server.wait(PATIENCE) == 0
        assert server.count("ws disconnected 1012") == 2
        assert "Traceback" not in server.log


@pytest.mark.parametrize("ws", WS)
def test_with_finish_a_websocket_goes_on_until_the_grace_period_ends(
    tmp_path: Path, ws: str
) -> None:
    env = {"GRACEFUL_WEBSOCKETS": "finish"}
    with (
        uvicorn(tmp_path, "--ws", ws, env=env, lame_duck=0.3, grace=4) as server,
        websocket(server, "/ws/echo") as stays,
        websocket(server, "/ws/echo") as finishes,
    ):
        server.terminate()
        server.wait_for(r"\]: draining \(")
        for opened in (stays, finishes):
            opened.send("after the listener close")
            assert opened.recv(timeout=5) == "after the listener close"
        finishes.close()
        assert "]: cancelling (" not in server.log
        assert close_code(stays, within=PATIENCE) == SERVICE_RESTART
        assert server.wait() == 1
        assert "1 completed, 0 closed, 1 cancelled" in server.log


@pytest.mark.parametrize("ws", WS)
def test_with_finish_a_drain_ends_when_the_last_websocket_has(tmp_path: Path, ws: str) -> None:
    env = {"GRACEFUL_WEBSOCKETS": "finish"}
    with (
        uvicorn(tmp_path, "--ws", ws, env=env, lame_duck=0.3, grace=30) as server,
        websocket(server, "/ws/echo") as opened,
    ):
        server.terminate()
        server.wait_for(r"\]: draining \(")
        opened.close()
        assert server.wait(PATIENCE) == 0


@pytest.mark.parametrize("ws", WS)
def test_a_websocket_that_has_sent_its_close_and_reads_nothing_does_not_abort_the_drain(
    tmp_path: Path, ws: str, beside: ThreadPoolExecutor
) -> None:
    """uvicorn's shutdown of that connection raises, and with it the shutdown of the server:
    everything else in flight is cut, and the lifespan gets no shutdown."""
    with (
        uvicorn(tmp_path, "--ws", ws, lame_duck=0.3, grace=3) as server,
        raw_websocket(server, "/ws/flood", receive_buffer=4096) as half_closed,
    ):
        half_closed.send(close_frame(1000))
        wait_until(lambda: unread_by_server(half_closed) == 0, "the server has read the close")
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.terminate()
        answer = slow.result()
        assert (answer.status, answer.closes) == (200, True)
        assert server.wait() in (0, 1)  # what became of the flood is another matter
        assert server.count("lifespan shutdown") == 1
        assert "hard deadline" not in server.log


def unread_by_server(client: Client) -> int:
    """Return how many bytes of ours the server's kernel holds unread, as /proc tells it."""
    ours = client.socket.getsockname()[1]
    theirs = client.socket.getpeername()[1]
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            if fields[1].endswith(f":{theirs:04X}") and fields[2].endswith(f":{ours:04X}"):
                return int(fields[4].split(":")[1], 16)
    return 0


@pytest.mark.parametrize("ws", WS)
def test_a_peer_that_ignores_the_close_does_not_hold_the_server_past_its_periods(
    tmp_path: Path, ws: str
) -> None:
    with (
        uvicorn(tmp_path, "--ws", ws, lame_duck=0.2, grace=1) as server,
        raw_websocket(server, "/ws/echo"),
    ):
        server.terminate()
        assert server.wait() in (0, 1)
        assert "hard deadline" not in server.log


@pytest.mark.timed
@pytest.mark.parametrize(("ws", "loop"), WS_AND_LOOP)
def test_sessions_are_closed_one_after_the_other_and_every_message_that_was_received_is_answered(
    tmp_path: Path, ws: str, loop: str
) -> None:
    """Those that only push, too, and those that wait for something else: they owe no reply."""
    need("websockets", "wsproto")

    def drained() -> Crowd:
        clients = [
            *((80, talks(path)) for path in ("/ws/work", "/ws/apart")),
            *((40, listens_to(path)) for path in ("/ws/push", "/ws/push?s=3600", "/ws/idle")),
        ]
        with uvicorn(tmp_path, "--ws", ws, loop=loop, lame_duck=4, grace=20, cleanup=5) as server:
            crowd = Crowd(server)
            asyncio.run(crowd.run(*clients))
            assert server.wait() == 0
        assert crowd.how() == {"1012": 280}
        assert crowd.replies > 400
        received = set(re.findall(r"received (\S+)", server.log))
        unanswered = {end.unanswered for end in crowd.ended if end.unanswered}
        assert not unanswered & received, "given to the handler, and never answered"
        assert "0 completed, 280 closed, 0 cancelled, 0 aborted" in server.log
        assert "]: draining (" in server.log
        assert "Traceback" not in server.log
        return crowd

    assert spread(drained)


@pytest.mark.parametrize("ws", WS)
def test_a_session_that_only_pushes_does_not_hold_up_a_person_at_the_terminal(
    tmp_path: Path, ws: str
) -> None:
    with uvicorn(tmp_path, "--ws", ws, lame_duck=60, grace=60) as server:
        with websocket(server, "/ws/push") as pushed, websocket(server, "/ws/idle") as idle:
            server.wait_for("push began")
            pushed.send("subscribe")  # which may have a reply, as far as can be seen
            server.signal(signal.SIGINT)
            assert close_code(pushed, within=20) == SERVICE_RESTART
            assert close_code(idle, within=20) == SERVICE_RESTART
        assert server.wait(20) == 0
    assert "0 completed, 2 closed" in server.log


@pytest.mark.parametrize("ws", WS)
def test_a_session_that_only_pushes_does_not_hold_up_a_reload(tmp_path: Path, ws: str) -> None:
    need("watchfiles")
    options = ("--ws", ws, "--reload", "--reload-dir", str(tmp_path))
    with uvicorn(tmp_path, *options, lame_duck=60, grace=60) as server:
        server.wait_for_workers(1)
        with websocket(server, "/ws/push") as pushed, websocket(server, "/ws/idle") as idle:
            server.wait_for("push began")
            pushed.send("subscribe")  # which may have a reply, as far as can be seen
            change(server, tmp_path / "changed.py", "# saved\n")
            assert close_code(pushed, within=20) == SERVICE_RESTART
            assert close_code(idle, within=20) == SERVICE_RESTART
        server.wait_for("Application startup complete", count=2)
        server.signal(signal.SIGTERM)
        assert server.wait(20) in (0, -signal.SIGTERM)  # the parent is uvicorn's own
    assert "0 completed, 2 closed" in server.log


@pytest.mark.parametrize("ws", WS)
def test_a_reply_and_a_handshake_that_take_longer_than_the_lame_duck_come_before_the_close(
    tmp_path: Path, ws: str
) -> None:
    with (
        uvicorn(tmp_path, "--ws", ws, lame_duck=0.2, grace=20) as server,
        websocket(server, "/ws/work?s=1.5") as busy,
        Client(server.port) as peer,
    ):
        busy.send("a lot")
        server.wait_for("received a lot")
        peer.send(upgrade("/ws/late?s=1.2"))
        server.wait_for("handshake began")
        server.terminate()
        assert peer.head()[0] == 101
        frame = peer.read(4)
        assert frame[0] == 0x88, "a close"
        assert struct.unpack("!H", frame[2:4]) == (SERVICE_RESTART,)
        assert busy.recv(timeout=10) == "a lot"
        server.wait_for(r"\]: draining \(")
        assert close_code(busy, within=10) == SERVICE_RESTART
        assert server.wait(10) == 0


# What the server has read already


@pytest.mark.parametrize("ws", WS)
def test_a_busy_handler_gets_what_it_would_get_of_plain_uvicorn_that_serves_on(
    tmp_path: Path, ws: str
) -> None:
    """Its client's messages and close came before the drain would have closed the session."""
    received = {}
    for app in ("bare", "app"):
        with (
            uvicorn(tmp_path, "--ws", ws, app=f"e2e.app:{app}", lame_duck=0.3, grace=20) as server,
            raw_websocket(server, f"/ws/busy?until=go-on-{app}") as peer,
        ):
            server.wait_for("busy began")
            # In one piece: uvicorn reads no further while a message waits for its handler.
            sent = [text_frame(f"{number}") for number in range(10)]
            peer.send(b"".join([*sent, close_frame(1000, "bye")]))
            wait_until(lambda: unread_by_server(peer) == 0, "the server has read all of it")
            if app == "app":
                server.terminate()
                server.wait_for(r"\]: draining \(")
            (tmp_path / f"go-on-{app}").touch()
            server.wait_for("ws disconnected")
            received[app] = re.findall(r"received \d+|ws disconnected .*", server.log)
            if app == "app":
                assert server.wait() == 0
                assert "1 completed, 0 closed, 0 cancelled, 0 aborted" in server.log
    assert received["app"] == received["bare"]
    assert received["bare"] == [*(f"received {n}" for n in range(10)), "ws disconnected 1000 bye"]


@pytest.mark.parametrize("ws", WS)
def test_what_a_busy_handler_is_given_late_is_answered_before_the_close(
    tmp_path: Path, ws: str
) -> None:
    with (
        uvicorn(tmp_path, "--ws", ws, lame_duck=0.3, grace=20) as server,
        websocket(server, "/ws/busy?until=go-on&reply=1") as opened,
    ):
        server.wait_for("busy began")
        for number in range(10):
            opened.send(f"{number}")
        server.terminate()
        server.wait_for(r"\]: draining \(")
        (tmp_path / "go-on").touch()
        assert [opened.recv(timeout=10) for _ in range(10)] == [f"{n}" for n in range(10)]
        assert close_code(opened, within=10) == SERVICE_RESTART
        assert server.wait() == 0
    assert "0 completed, 1 closed, 0 cancelled, 0 aborted" in server.log
