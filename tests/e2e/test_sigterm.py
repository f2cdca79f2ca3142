"""SIGTERM, the ordinary case, with every HTTP implementation and loop that uvicorn has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get, is_refused
from support.polling import wait_until
from support.server import ENOUGH, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path


@pytest.mark.parametrize(
    ("http", "loop"),
    [("h11", "asyncio"), ("httptools", "asyncio"), ("httptools", "uvloop"), ("zttp", "uvloop")],
)
def test_sigterm_drains_and_exits_in_order(
    tmp_path: Path, http: str, loop: str, beside: ThreadPoolExecutor
) -> None:
    with uvicorn(tmp_path, http=http, loop=loop, lame_duck=ENOUGH, grace=20) as server:
        assert not get(server.port, "/").closes
        assert get(server.port, "/readyz").status == 200
        slow = beside.submit(get, server.port, "/slow?until=go-on&name=old")
        stream = beside.submit(get, server.port, "/stream?n=20")
        server.wait_for("slow began old")
        server.wait_for('"GET /stream')
        with Client(server.port) as kept:
            assert not kept.get("/").closes
            server.terminate()
            assert kept.get("/").closes
        assert get(server.port, "/").closes
        assert get(server.port, "/", version="1.0").status == 200
        assert get(server.port, "/readyz").status == 503
        assert get(server.port, "/livez").status == 200

        server.wait_for(r"drain \[\d+\]: draining")
        wait_until(lambda: is_refused(server.port), "connects are refused", within=5)
        assert not slow.done()
        (tmp_path / "go-on").touch()

        answer = slow.result()
        assert (answer.status, answer.body, answer.closes) == (200, b"slow, but complete", True)
        assert (stream.result().status, len(stream.result().body)) == (200, 2000)
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") == 1
        assert "clean after" in server.log
        assert "Traceback" not in server.log


def test_the_lame_duck_takes_its_period_and_no_more_when_nothing_is_in_flight(
    tmp_path: Path,
) -> None:
    with uvicorn(tmp_path, lame_duck=1.0, grace=20) as server:
        server.terminate()
        assert server.wait() == 0
        assert 1.0 <= server.seconds_since_signal() < 10


def test_a_quiet_period_ends_the_lame_duck_early(tmp_path: Path) -> None:
    env = {"GRACEFUL_QUIET_PERIOD": "2"}
    with uvicorn(tmp_path, env=env, lame_duck=30) as server:
        server.terminate()
        began = time.monotonic()
        while time.monotonic() < began + 3:  # requests keep it open
            assert get(server.port, "/").status == 200
            time.sleep(0.05)
        assert server.wait(15) == 0


def test_a_rejecting_policy_answers_503_in_the_lame_duck_and_finishes_what_it_has(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    env = {"GRACEFUL_NEW_REQUESTS": "reject"}
    with uvicorn(tmp_path, env=env, lame_duck=ENOUGH, grace=5) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.terminate()
        answer = get(server.port, "/")
        assert answer.status == 503
        assert answer.closes
        assert "retry-after" in answer.headers
        assert get(server.port, "/livez").status == 200
        assert slow.result().status == 200
        assert server.wait() == 0
