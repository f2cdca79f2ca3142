"""Work that is still in flight when its deadline passes, and the end by the hard deadline."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from support.client import Client, CutError
from support.server import ENOUGH, Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

HTTP = ["h11", "httptools", "zttp"]
LOOP_OF = {"h11": "asyncio", "httptools": "uvloop", "zttp": "asyncio"}


def is_cut(client: Client) -> bool:
    try:
        client.response()
    except CutError:
        return True
    return False


def assert_stuck(server: Server, path: str, line: str) -> None:
    """The report names the path, and the app's own line and not one of a library."""
    stuck = next(line for line in server.log.splitlines() if "stuck:" in line and path in line)
    assert re.search(rf"app\.py:\d+ in {line}", stuck), stuck


@pytest.mark.parametrize("http", HTTP)
def test_what_has_not_answered_gets_a_503_and_what_has_begun_looks_cut(
    tmp_path: Path, http: str, beside: ThreadPoolExecutor
) -> None:
    """A cut answer must never look complete. Without a length only a reset can tell: HTTP/1.0."""
    with (
        uvicorn(
            tmp_path, http=http, loop=LOOP_OF[http], lame_duck=0.2, grace=0.5, cancel=5, cleanup=5
        ) as server,
        Client(server.port) as slow,
        Client(server.port) as chunked,
        Client(server.port) as sized,
        Client(server.port) as unsized,
    ):
        slow.request("/slow?name=cancelled")
        chunked.request("/stream?n=600")
        sized.request("/stream?n=600&length=1")
        unsized.request("/stream?n=600", version="1.0")
        cuts = [beside.submit(is_cut, client) for client in (chunked, sized, unsized)]
        server.wait_for("slow began cancelled")
        server.wait_for(r'"GET /stream.* 200', count=3)
        server.terminate()
        answer = slow.response()
        assert answer.status == 503
        assert answer.closes
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert [cut.result() for cut in cuts] == [True, True, True]
        assert server.wait() == 1
        assert_stuck(server, "/slow", "slow")
        assert "forced after" in server.log
        assert "1 cancelled, 3 aborted" in server.log
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") == 1
        assert "Traceback" not in server.log
        assert "500 Internal" not in server.log


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handler_that_swallows_its_cancellation_is_gone_by_the_hard_deadline(
    tmp_path: Path, loop: str
) -> None:
    with uvicorn(tmp_path, loop=loop, lame_duck=0.2, grace=0.3) as server:
        with Client(server.port) as client:
            client.request("/swallow")
            server.wait_for("swallow began")
            server.terminate()
            answer = client.response()
            assert (answer.status, answer.closes) == (503, True)
        assert server.wait() == 1
        assert_stuck(server, "/swallow", "swallow")
        assert "1 cancelled, 0 aborted" in server.log


@pytest.mark.parametrize("in_the_lame_duck", [False, True])
def test_a_blocked_event_loop_is_gone_by_the_hard_deadline(
    tmp_path: Path, in_the_lame_duck: bool
) -> None:
    lame_duck = ENOUGH if in_the_lame_duck else 0.5
    with uvicorn(tmp_path, lame_duck=lame_duck, grace=0.3) as server, Client(server.port) as client:
        client.request("/block?until=now")
        if in_the_lame_duck:
            server.terminate()
        (tmp_path / "now").touch()
        server.wait_for("block began")
        if not in_the_lame_duck:
            server.signal(signal.SIGTERM)
        assert is_cut(client)
        assert server.wait() == 1
        assert "hard deadline" in server.log
        assert_stuck(server, "/block", "block")
        assert "# blocked here" in server.log


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_the_hard_deadline_cuts_looks_cut(tmp_path: Path, loop: str) -> None:
    """The kernel closes what is open when a process ends. Without a length that looks complete."""
    with (
        uvicorn(tmp_path, http="h11", loop=loop, lame_duck=0, grace=0.3) as server,
        Client(server.port) as unsized,
        Client(server.port) as blocking,
    ):
        unsized.request("/stream?n=600", version="1.0")
        server.wait_for('"GET /stream.* 200')
        blocking.request("/block?s=60")
        server.wait_for("block began")
        server.signal(signal.SIGTERM)
        assert is_cut(unsized)
        assert server.wait() == 1
        assert "hard deadline" in server.log


def test_a_phase_that_begins_late_does_not_put_the_hard_deadline_off(tmp_path: Path) -> None:
    """The loop is blocked nearly as long, and `lifespan.shutdown` would need its whole period."""
    env = {"APP_SHUTDOWN": "hang"}
    with uvicorn(tmp_path, lame_duck=0.1, grace=0.3, cancel=0.1, cleanup=4.0, env=env) as server:
        with Client(server.port) as client:
            client.request("/block?s=4")
            server.wait_for("block began")
            server.signal(signal.SIGTERM)
            assert server.wait() == 1  # it would be 8.5 s, which is later than `wait` waits
        assert "hard deadline" in server.log


def test_a_thread_that_does_not_end_is_gone_by_the_hard_deadline(tmp_path: Path) -> None:
    """The interpreter would join it: the exit waits for worker threads, however long they take."""
    with uvicorn(tmp_path, lame_duck=0.2, grace=0.3) as server, Client(server.port) as client:
        client.request("/thread")
        server.wait_for("thread began")
        server.terminate()
        assert server.wait() == 1
        assert "/thread" in server.log
        assert "# thread sleeps here" in server.log


def test_a_background_task_finishes_within_the_grace_period(tmp_path: Path) -> None:
    """Work is in flight until the ASGI call returns, not until the last byte of the answer."""
    with uvicorn(tmp_path, lame_duck=0.2, grace=5) as server, Client(server.port) as client:
        assert client.get("/background?s=1").status == 200
        server.terminate()
        assert server.wait() == 0
        assert server.log.index("background done") < server.log.index("lifespan shutdown")


def test_an_error_in_a_handler_is_the_servers_500_and_no_matter_of_the_drain(
    tmp_path: Path,
) -> None:
    with uvicorn(tmp_path, lame_duck=60) as server, Client(server.port) as client:
        server.terminate()
        answer = client.get("/fail")
        assert answer.status == 500
        server.signal(signal.SIGINT)  # the rest of the lame duck shows nothing
        assert server.wait(8) == 0
        assert "RuntimeError: as asked" in server.log


def test_an_endpoint_in_a_thread_counts_until_it_is_done(tmp_path: Path) -> None:
    with uvicorn(tmp_path, lame_duck=0.2, grace=10) as server, Client(server.port) as client:
        client.request("/thread?s=1.5")
        server.wait_for("thread began")
        server.terminate()
        assert client.response().body == b"thread done"
        assert server.wait(8) == 0
        assert "clean after" in server.log
        assert "1 completed" in server.log
