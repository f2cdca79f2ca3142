"""Event streams, downloads and crowds: what is ended so that its client takes it for whole."""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.client import Client
from support.need import need, need_program
from support.polling import wait_until
from support.server import ROOM, uvicorn

from .crowd import Crowd, hangs, listens, reads, spread

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from support.server import Server

PATIENT = "/events?patient=1"
"""A stream of sse-starlette whose own drain the app has turned off, in all of its process."""
STREAMS = [
    "/events",
    "/events/ticks",
    "/events/pieces",
    "/events/rare",
    "/events/raw/",
]


def drained(server: Server, count: int, *paths: str, method: str = "GET") -> Crowd:
    """Return how so many clients of each path were ended by one stop."""
    crowd = Crowd(server)
    asyncio.run(crowd.run(*((count, reads(path, method=method)) for path in paths)))
    return crowd


@pytest.mark.timed
@pytest.mark.parametrize(
    ("http", "paths"),
    [
        ("httptools", STREAMS),
        ("httptools", [PATIENT]),
        ("h11", ["/events/pieces"]),
        ("zttp", ["/events/pieces"]),
    ],
    ids=["httptools", "httptools, patient", "h11", "zttp"],
)
def test_event_streams_are_closed_between_two_events_within_the_lame_duck(
    tmp_path: Path, http: str, paths: list[str]
) -> None:
    """Also those of sse-starlette, which would end all of its own at once."""
    need("sse_starlette", "zttp")

    def once() -> Crowd:
        with uvicorn(tmp_path, http=http, lame_duck=4, grace=20) as server:
            crowd = drained(server, 50, *paths)
            assert server.wait(9) == 0
        count = 50 * len(paths)
        assert crowd.how() == {"whole": count}
        assert f"0 completed, {count} closed, 0 cancelled, 0 aborted" in server.log
        assert "Traceback" not in server.log
        assert "without completing response" not in server.log
        return crowd

    assert spread(once)


@pytest.mark.parametrize(
    ("loop", "paths"), [("asyncio", STREAMS), ("uvloop", [PATIENT, "/events/pieces"])]
)
def test_with_finish_they_are_closed_between_two_events_as_the_grace_period_ends(
    tmp_path: Path, loop: str, paths: list[str]
) -> None:
    need("sse_starlette")
    env = {"GRACEFUL_EVENT_STREAMS": "finish"}
    with uvicorn(
        tmp_path, loop=loop, lame_duck=0.5, grace=2, cancel=5, cleanup=5, env=env
    ) as server:
        crowd = drained(server, 10, *paths)
        assert server.wait() == 1
    assert crowd.how() == {"whole": 10 * len(paths)}
    assert min(end.after for end in crowd.ended) > 1.5
    assert "stuck: http GET /events" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_stream_that_says_so_is_closed_as_the_drain_begins(tmp_path: Path, method: str) -> None:
    env = {"GRACEFUL_EVENT_STREAMS": "finish"}
    with uvicorn(tmp_path, env=env, lame_duck=1, grace=20) as server:
        crowd = drained(server, 20, "/events/willing", method=method)
        assert server.wait(8) == 0
    assert crowd.how() == {"whole": 20}
    assert max(end.after for end in crowd.ended) < 20, "with the policy it is the grace period"


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_the_connection_of_a_stream_that_is_closed_ends_with_it(tmp_path: Path, http: str) -> None:
    """On that connection its client would come back to the server that drains."""
    with uvicorn(tmp_path, http=http, lame_duck=8, grace=20) as server:
        with Client(server.port) as client:
            client.request("/events/willing")
            status, headers = client.head()
            assert (status, headers.get("connection")) == (200, None)
            server.terminate()
            while client.chunk():
                pass
            assert client.ends()
            assert "]: draining (" not in server.log
        server.signal(signal.SIGINT)  # the rest of the lame duck shows nothing
        assert server.wait() == 0


def test_an_event_stream_that_nobody_reconnects_to_is_never_completed(tmp_path: Path) -> None:
    """A client that has sent a POST takes the end of the body for the end of the answer."""
    need("sse_starlette")
    with uvicorn(tmp_path, lame_duck=0.5, grace=1, cancel=5, cleanup=5) as server:
        crowd = drained(server, 10, *STREAMS, method="POST")
        assert server.wait() == 1
    assert crowd.how() == {"cut": 10 * len(STREAMS)}
    assert min(end.after for end in crowd.ended) > 1.4, "they had the whole grace period"
    assert f"{10 * len(STREAMS)} aborted" in server.log
    assert "Traceback" not in server.log


def test_an_app_without_a_framework_learns_of_the_end_by_an_oserror(tmp_path: Path) -> None:
    with uvicorn(tmp_path, lame_duck=0.5, grace=20) as server:
        drained(server, 5, "/events/raw/")
        assert server.wait(8) == 0
    assert server.count("raw ticks got ClosedError(") == 5


@pytest.mark.timed
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_thousand_of_each_drain_within_the_lame_duck_and_a_second(
    tmp_path: Path, loop: str
) -> None:
    allow_files(5000)
    with uvicorn(
        tmp_path, "--no-access-log", loop=loop, lame_duck=2, grace=30, cleanup=10
    ) as server:
        crowd = Crowd(server)
        asyncio.run(crowd.run((1000, listens), (1000, reads("/events/ticks?s=1"))))
        assert server.wait() == 0
    assert crowd.how() == {"1012": 1000, "whole": 1000}
    took = re.search(r"clean after (\S+) s \(SIGTERM\): 0 completed, 2000 closed", server.log)
    assert took is not None, server.log[-2000:]
    room = 2 * ROOM  # the clients take most of the machine
    assert float(took[1]) < 2 + 1 + room


@pytest.mark.timed
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_hundreds_that_are_due_as_the_grace_period_ends_are_whole_or_503_and_in_time(
    tmp_path: Path, loop: str
) -> None:
    """`make bench` does the same with 8 000 of each."""
    allow_files(4000)
    env = {"GRACEFUL_EVENT_STREAMS": "finish"}
    with uvicorn(
        tmp_path, "--no-access-log", loop=loop, env=env, grace=3, cancel=4, cleanup=5
    ) as server:
        crowd = Crowd(server)
        asyncio.run(crowd.run((800, reads("/events/rare")), (800, hangs("/slow"))))
        assert server.wait() == 1
        assert server.seconds_since_signal() < sum(server.periods.values()), "the policy's total"
    assert crowd.how() == {"503": 800, "whole": 800}
    first = min(end.after for end in crowd.ended if end.how == "503")
    assert first < server.periods["lame_duck"] + server.periods["grace"] + ROOM
    assert "0 completed, 0 closed, 1600 cancelled, 0 aborted" in server.log


def allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


# A download that the deadline cuts


def cut_for_httpx(url: str) -> None:
    with pytest.raises(httpx.TransportError), httpx.stream("GET", url, timeout=30) as response:
        for _ in response.iter_raw():
            pass


def cut_for_curl(url: str) -> None:
    command = ["curl", "--silent", "--output", "/dev/null", "--max-time", "60", url]
    code = subprocess.run(command, check=False).returncode
    assert code in (18, 56), f"{code}: neither a partial file nor a failure in receiving"


def cut_for_aiohttp(url: str) -> None:
    import aiohttp

    async def read() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            async for _ in response.content.iter_any():
                pass

    with pytest.raises(aiohttp.ClientError):
        asyncio.run(read())


@pytest.mark.parametrize("length", ["", "?length=1"], ids=["chunked", "of a known length"])
def test_a_download_that_is_cut_looks_cut(
    tmp_path: Path, beside: ThreadPoolExecutor, length: str
) -> None:
    """To every client, whatever `event_streams` says: a part must never pass for the whole."""
    need("aiohttp")
    need_program("curl")
    with uvicorn(tmp_path, lame_duck=0.3, grace=1, cancel=5, cleanup=5) as server:
        url = f"http://127.0.0.1:{server.port}/download{length}"
        clients: list[Any] = [cut_for_httpx, cut_for_curl, cut_for_aiohttp]
        running = [beside.submit(client, url) for client in clients]
        wait_until(lambda: server.count("GET /download") == 3, "all are served")
        server.terminate()
        for future in running:
            future.result(timeout=30)
        assert server.wait() == 1
    assert "3 aborted" in server.log


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_download_with_a_request_behind_it_looks_cut(tmp_path: Path, http: str) -> None:
    """With httptools the connection shows the last request of a pipeline, not the one answered."""
    with (
        uvicorn(tmp_path, http=http, lame_duck=0.3, grace=1, cancel=5, cleanup=5) as server,
        Client(server.port) as client,
    ):
        client.request("/download")
        client.request("/")
        server.wait_for("GET /download")
        server.terminate()
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: client.socket.recv(65536), b""))
        assert server.wait() == 1
    assert "1 aborted" in server.log
