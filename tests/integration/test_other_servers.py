"""On servers that the middleware does not know it changes nothing that a client or an app sees.

Each server runs the same app without the middleware and with it, side by side.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support.client import Client, CutError
from support.command import run_python
from support.need import need
from support.polling import PATIENCE
from support.ports import free_port
from support.server import Server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SERVERS: Mapping[str, tuple[str, ...]] = {
    "hypercorn": ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}"),
    "hypercorn uvloop": ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}", "-k", "uvloop"),
    "hypercorn trio": ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}", "-k", "trio"),
    "granian": ("granian", "--interface", "asgi", "--port", "{port}", "{app}"),
    "granian uvloop": (
        *("granian", "--interface", "asgi", "--loop", "uvloop", "--port", "{port}", "{app}"),
    ),
    "granian without lifespan": (
        *("granian", "--interface", "asginl", "--port", "{port}", "{app}"),
    ),
    "daphne": ("daphne", "-b", "127.0.0.1", "-p", "{port}", "{app}"),
    "gunicorn asgi": ("gunicorn", "{app}", "-k", "asgi", "-b", "127.0.0.1:{port}"),
}
EVENT = b"data: tick\n\n"
PASSIVE = "passive, no uvicorn server found here"


def server(name: str, app: str, directory: Path, *, env: dict[str, str] | None = None) -> Server:
    program, *arguments = SERVERS[name]
    need("fastapi", program)
    port = free_port()
    filled = [each.format(app=f"integration.passive_app:{app}", port=port) for each in arguments]
    command = [sys.executable, "-m", program, *filled]
    return Server(command, directory, port=port, env=env, ready_path="/", measured=False)


def observe(running: Server, seconds: int = 1) -> dict[str, Any]:
    """Return everything that clients and the app see of the server, to its exit.

    What is in flight at its stop takes so many seconds.
    """
    seen: dict[str, Any] = {}
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(answer, running, "/stream") for _ in range(5)]
        seen["streams"] = Counter(stream.result() for stream in streams)
        seen["upload"] = answer(running, "/upload", body=b"x" * 200_000)
        seen["raises"] = answer(running, "/raises")
        seen["websocket"] = conversation(running)
        seen["sees that a client has gone"] = leave(running)
        slow = pool.submit(answer, running, f"/slow?s={seconds}")
        events = [
            pool.submit(events_of, running, method, count=10 * seconds)
            for method in ("GET", "POST")
        ]
        running.wait_for("slow began")
        running.wait_for("events began", count=2)
        running.signal(signal.SIGTERM)
        seen["in flight at the stop"] = slow.result()
        seen["event streams in flight at the stop"] = [each.result() for each in events]
        seen["exit code"] = running.wait(PATIENCE)
    texts = ("background task ran", "commit", "rollback: ValueError", "app started", "app stopped")
    seen["the app"] = {text: running.count(text) for text in texts}
    seen["rollbacks"] = running.count("rollback")
    seen["tracebacks"] = running.count("Traceback (")
    return seen


def answer(running: Server, path: str, body: bytes | None = None) -> tuple[int, bytes] | str:
    with Client(running.port) as client:
        try:
            client.request(path, method="GET" if body is None else "POST", body=body)
            response = client.response()
        except (CutError, ValueError):  # in the middle of a chunk's size, too
            return "cut"
        return response.status, response.body


def events_of(running: Server, method: str = "GET", *, count: int) -> bytes | str:
    """Return the whole body of an event stream."""
    with Client(running.port) as client:
        client.send(
            f"{method} /events?count={count} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Length: 0\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        try:
            return client.response().body
        except (CutError, ValueError):
            return "cut"


def close_code(running: Server, is_open: threading.Event) -> int:
    """Open a WebSocket, set *is_open*, and return the code that it is closed with."""
    with connect(f"ws://127.0.0.1:{running.port}/ws") as opened:
        is_open.set()
        try:
            while True:
                opened.recv(timeout=PATIENCE)
        except ConnectionClosed as closed:
            return 1006 if closed.rcvd is None else closed.rcvd.code


def conversation(running: Server) -> list[str]:
    """Talk to a handler that waits for each message with a timeout, and cancels its wait."""
    with connect(f"ws://127.0.0.1:{running.port}/ws") as opened:
        received = []
        with contextlib.suppress(ConnectionClosed):
            received.append(str(opened.recv(timeout=PATIENCE)))
            opened.send("one")
            while received[-1] != "echo one":
                received.append(str(opened.recv(timeout=PATIENCE)))
    with contextlib.suppress(AssertionError):
        running.wait_for(r"disconnected \d+", within=10)
    return [*dict.fromkeys(received), *re.findall(r"disconnected \d+", running.log)]


def leave(running: Server) -> bool:
    """Leave an endless response; return True if its handler gets a disconnect.

    gunicorn cancels the handler 3 s after its client has gone (`asgi_disconnect_grace_period`).
    """
    with Client(running.port) as client:
        client.request("/endless")
        client.head()
        running.wait_for("endless began")
    with contextlib.suppress(AssertionError):
        running.wait_for("endless ended", within=10)
        return True
    return False


@pytest.mark.parametrize("name", SERVERS)
def test_nothing_changes_for_clients_and_app(tmp_path: Path, name: str) -> None:
    seen = {}
    # daphne waits for nothing. What is in flight must be so until a slow machine has stopped it.
    seconds = 10 if name == "daphne" else 1
    for app in ("plain", "app"):
        with server(name, app, tmp_path) as running:
            seen[app] = observe(running, seconds)
            passive = running.count(PASSIVE)
            assert passive == (0 if app == "plain" else 1), "once, and not by the app alone"
    assert seen["app"] == seen["plain"]
    assert seen["app"]["streams"] == {(200, b"ab"): 5}
    assert seen["app"]["upload"] == (200, b"200000")
    if name != "daphne":
        assert seen["app"]["event streams in flight at the stop"] == [EVENT * 10] * 2
    assert seen["app"]["websocket"][:2] == ["still there?", "echo one"]
    assert seen["app"]["the app"]["background task ran"] == 5
    assert seen["app"]["rollbacks"] == 1, "that of the error of the app itself"


@pytest.mark.parametrize("name", ["granian", "granian uvloop", "hypercorn", "hypercorn trio"])
def test_a_drain_that_is_begun_there_closes_event_streams_and_websockets(
    tmp_path: Path, name: str
) -> None:
    """A stop of these servers is not seen. A drain by the endpoint comes before it, in a preStop.

    Without it, granian waits for endless streams for as long as their clients stay.
    """
    token = "a token of the tests"
    env = {
        "GRACEFUL_DRAIN_PATH": "/drain",
        "GRACEFUL_DRAIN_TOKEN": token,
        "GRACEFUL_GRACE_PERIOD": "20",
    }
    with server(name, "app", tmp_path, env=env) as running, ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(events_of, running, count=1_000_000) for _ in range(5)]
        post = pool.submit(events_of, running, "POST", count=30)
        is_open = threading.Event()
        session = pool.submit(close_code, running, is_open)
        running.wait_for("events began", count=6)
        assert is_open.wait(PATIENCE)
        with Client(running.port) as client:
            client.send(
                "POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            assert client.response().status == 200, "all of them have ended"
        for stream in streams:
            body = stream.result()
            assert isinstance(body, bytes)
            assert body
            assert body == EVENT * (len(body) // len(EVENT))
        assert session.result() == 1012
        assert post.result() == EVENT * 30, "nobody asks for it again"
        running.signal(signal.SIGTERM)
        assert running.wait(PATIENCE) == 0
    assert "Traceback (" not in running.log


def test_a_function_on_mangum_answers_any_number_of_events() -> None:
    """It starts and stops the app's lifespan for each of them."""
    need("fastapi", "mangum")
    ended = run_python(
        """
        import json, logging, sys, warnings
        sys.path.insert(0, "tests")
        warnings.simplefilter("error")
        logging.basicConfig()
        from mangum import Mangum
        from integration import passive_app

        class Context:
            aws_request_id = "1"

        def event(path):
            return {
                "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
                "headers": {"host": "localhost"}, "isBase64Encoded": False,
                "requestContext": {
                    "http": {"method": "GET", "path": path, "sourceIp": "127.0.0.1"},
                    "stage": "$default",
                },
            }

        for app in (passive_app.plain, passive_app.app):
            handle = Mangum(app)
            answers = [handle(event(path), Context()) for path in ("/", "/stream", "/", "/readyz")]
            print(json.dumps([(each["statusCode"], each["body"]) for each in answers]))
        """
    )
    assert ended.returncode == 0, ended.stderr
    plain, graceful = [json.loads(line) for line in ended.stdout.splitlines() if line[0] == "["]
    assert graceful[:3] == plain[:3] == [[200, '"hello"'], [200, "ab"], [200, '"hello"']]
    assert (plain[3][0], graceful[3][0]) == (404, 200)
    assert "WARNING" not in ended.stderr
    assert ended.stderr.count(PASSIVE) == 4, "one line for each start"
