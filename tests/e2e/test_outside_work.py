"""Requests that are answered outside of the middleware are in flight as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.client import Client, get, is_refused
from support.polling import wait_until
from support.server import ROOM, Server, uvicorn

from .endpoint import TOKEN
from .test_deadline import LOOP_OF
from .test_websocket import SERVICE_RESTART, close_code, websocket

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

HTTP = ["h11", "httptools", "zttp"]


def inner(directory: Path, *args: str, http: str = "httptools", **periods: float) -> Server:
    server = uvicorn(directory, *args, app="e2e.inner_app:app", http=http, loop=LOOP_OF[http])
    for name, period in {"lame_duck": 0.2, "grace": 5.0, **periods}.items():
        server.set_period(name, period)
    return server


def test_a_request_outside_is_waited_for(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    with inner(tmp_path) as server:
        poll = beside.submit(get, server.port, "/poll?until=go-on")
        server.wait_for("outside began")
        server.terminate()
        server.wait_for("GET /poll do not pass through GracefulMiddleware")
        server.wait_for(r"\]: draining \(")
        (tmp_path / "go-on").touch()
        assert poll.result().body == b"polled"
        assert server.wait() == 0
        assert "clean after" in server.log
        assert "1 completed" in server.log


@pytest.mark.parametrize("http", HTTP)
def test_a_request_outside_that_is_cut_is_answered_named_and_not_called_clean(
    tmp_path: Path, http: str
) -> None:
    with (
        inner(tmp_path, http=http, grace=0.5) as server,
        Client(server.port) as poll,
        Client(server.port) as download,
    ):
        poll.request("/poll?s=60")
        download.request("/download?s=60", version="1.0")
        server.wait_for("outside began", count=2)
        server.terminate()
        answer = poll.response()
        assert (answer.status, answer.closes) == (503, True)
        assert "retry-after" in answer.headers
        with pytest.raises(Exception, match=r"reset|cut"):
            download.response()
        assert server.wait() == 1
        assert "1 cancelled, 1 aborted" in server.log
        assert "stuck: http GET /poll" in server.log
        assert server.count("inner_app.py") >= 2
        assert "hard deadline" not in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_a_session_outside_gets_its_1012_as_the_drain_begins(tmp_path: Path, ws: str) -> None:
    """Plain uvicorn closes it at once; nobody is to wait for it for the whole grace period."""
    with (
        inner(tmp_path, "--ws", ws, lame_duck=0.5, grace=20) as server,
        websocket(server, "/ws") as opened,
    ):
        opened.send("hello")
        assert opened.recv() == "hello"
        server.terminate()
        assert close_code(opened, within=0.5 + ROOM) == SERVICE_RESTART
        server.wait_for("outside ended 1012")
        server.wait_for("WebSockets such as /ws .* a drain closes them with 1012")
        assert server.wait(0.5 + ROOM) == 0
        assert "clean after" in server.log


def test_a_drain_endpoint_further_in_does_not_wait_for_itself(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with inner(tmp_path) as server, Client(server.port) as client:
        poll = beside.submit(get, server.port, "/poll?s=1.5")
        server.wait_for("outside began")
        client.send(
            f"GET /drain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        assert client.response().status == 200
        assert "outside answers" in server.log, "the drain has waited for it"
        assert poll.result().body == b"polled"


def test_requests_that_only_pass_through_something_outside_are_counted_once(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with inner(tmp_path) as server:
        slow = beside.submit(get, server.port, "/slow?until=go-on&name=old")
        server.wait_for("slow began old")
        server.terminate()
        server.wait_for(r"\]: draining \(")
        (tmp_path / "go-on").touch()
        assert slow.result().status == 200
        assert server.wait() == 0
        assert "1 completed, 0 closed, 0 cancelled" in server.log
        assert "do not pass through GracefulMiddleware" not in server.log
        wait_until(lambda: is_refused(server.port), "it is gone")
