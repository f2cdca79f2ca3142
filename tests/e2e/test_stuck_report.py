"""The stuck report of a real server: in a terminal, as JSON, and with the event loop blocked."""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

from support.client import Client
from support.server import uvicorn
from websockets.sync.client import connect

from . import json_log

if TYPE_CHECKING:
    from pathlib import Path


def block_of(log: str, path: str) -> str:
    """Return what the report says of the work at *path*: its line, and those further in."""
    found = re.search(rf"^  stuck: \w+ (?:\w+ )?{path} .*\n(?:    .*\n)*", log, re.M)
    assert found, log
    return found[0]


def test_the_report_tells_of_everything_that_is_in_flight_in_a_terminal(tmp_path: Path) -> None:
    env = {"GRACEFUL_WEBSOCKETS": "finish", "GRACEFUL_EVENT_STREAMS": "finish"}
    app = "e2e.layered_app:app"
    with (
        uvicorn(tmp_path, app=app, env=env, lame_duck=0.2, grace=1.2) as server,
        ExitStack() as stack,
    ):
        clients = {
            path: stack.enter_context(Client(server.port))
            for path in ("/items/7", "/thread", "/events")
        }
        for path, client in clients.items():
            client.request(path)
        stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/ws"))
        server.wait_for("began", count=4)
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        log = server.log
        ports = {path: client.socket.getsockname()[1] for path, client in clients.items()}
    assert len(re.findall(r"s until work is cancelled \(SIGTERM\), 4 still in flight", log)) == 1
    rest = log.partition("until work is cancelled")[2]

    item = block_of(rest, "/items/7")
    assert "response not started" in item
    assert "route   /items/{id}" in item
    assert f"client  127.0.0.1:{ports['/items/7']}" in item
    assert re.search(
        r"waits .*\n.*layered_app.py:\d+ in passes_on\n.*calls in .*starlette.*\n"
        r".*layered_app.py:\d+ in item\n.*layered_app.py:\d+ in query\n.*asyncio\)\n",
        item,
    ), "through a middleware that runs what is inside it in a task"

    thread = block_of(rest, "/thread")
    assert "thread  AnyIO worker thread" in thread
    assert re.search(r", at .*layered_app.py:\d+ in thread\n", thread)
    assert re.search(r"layered_app.py:\d+ in thread: time.sleep\(.*\)  # in a thread", rest)

    events = block_of(rest, "/events")
    assert "response started" in events
    assert re.search(r"sent    [1-9]\d* bytes of the body", events)
    assert ", open, at " in block_of(rest, "/ws")

    # The endpoint's thread goes on, and nothing can cancel it: the hard deadline tells of it again.
    last = rest.partition("hard deadline")[2]
    assert re.search(r"AnyIO worker thread\n.*\n.*layered_app.py:\d+ in thread", last)


def test_a_blocked_loop_is_told_of_before_the_grace_period_ends_and_in_one_json_object(
    tmp_path: Path,
) -> None:
    args = ("--log-config", json_log.write_config(tmp_path))
    with (
        uvicorn(tmp_path, *args, lame_duck=0.2, grace=1.6) as server,
        Client(server.port) as client,
    ):
        client.request("/block")
        server.wait_for("block began")
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        log = server.log
    (early,) = json_log.records(log, "drain.stuck_report")
    (last,) = json_log.records(log, "drain.hard_deadline")
    assert (early["level"], last["level"]) == ("WARNING", "ERROR")
    for report in (early, last):
        assert re.search(r"app.py:\d+ in block$", report["loop_blocked"]["where"])
        assert report["reason"] == "SIGTERM"
        (work,) = report["stuck"]
        assert (work["method"], work["path"], work["route"]) == ("GET", "/block", "/block")
        assert re.search(r"app.py:\d+ in block$", work["chain"][-1])
        assert any(
            re.search(r"app.py:\d+ in block: time.sleep", line)
            for thread in report["threads"]
            for line in thread["lines"]
        )
    assert early["loop_blocked"]["seconds"] < last["loop_blocked"]["seconds"]
    assert early["loop_blocked"]["at_least"] is True, "nobody looked before SIGTERM"
    assert 0 <= early["time_left"] <= 0.8
    assert json_log.records(log, "drain.stuck") == []
