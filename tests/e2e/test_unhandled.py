"""An exception that nobody handles stops a real server: with a drain, and exit code 1."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get
from support.need import need
from support.polling import wait_until
from support.ports import free_port
from support.server import ENOUGH, Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

APP = "e2e.programs:failing"
ENV = {"GRACEFUL_DRAIN_ON_UNHANDLED_EXCEPTION": "true"}


@pytest.mark.parametrize(
    ("where", "loop"), [("task", "asyncio"), ("thread", "uvloop"), ("callback", "uvloop")]
)
def test_it_drains_the_server_and_the_process_exits_with_1(
    tmp_path: Path, beside: ThreadPoolExecutor, where: str, loop: str
) -> None:
    with uvicorn(tmp_path, app=APP, env=ENV, loop=loop, lame_duck=ENOUGH, grace=10) as server:
        with Client(server.port) as client:
            client.request("/big")
            client.reset()  # a connection's failure is none of the server's
        assert get(server.port, "/fail").status == 500, "and so is a request's"
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        assert server.count("lame duck (") == 0
        assert get(server.port, f"/fail_beside?in={where}").status == 200
        server.wait_for(rf"lame duck \(unhandled exception: ValueError\('in a {where}'\)\)")
        assert get(server.port, "/").closes
        assert slow.result().body == b"slow, but complete"
        assert server.wait(15) == 1
        assert "clean after" in server.log
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") == 1
        assert "Traceback" in server.log, "what was there before tells of it"
        assert "hard deadline" not in server.log


def test_it_keeps_the_deadline_with_the_loop_blocked(tmp_path: Path) -> None:
    with (
        uvicorn(tmp_path, app=APP, env=ENV, lame_duck=1.0, grace=1.0) as server,
        Client(server.port) as client,
        Client(server.port) as other,
    ):
        client.request("/block?until=go-on")
        other.request("/fail_beside?in=thread")
        server.wait_for(r"lame duck \(unhandled exception")
        (tmp_path / "go-on").touch()
        assert server.wait(server.hard_deadline + 10) == 1
        assert "hard deadline" in server.log


def test_a_worker_of_uvicorns_is_replaced(tmp_path: Path) -> None:
    args = ("--workers", "2")
    with uvicorn(tmp_path, *args, app=APP, env=ENV, ready=None, lame_duck=0.2, grace=5) as server:
        server.wait_for_workers(2)
        assert get(server.port, "/fail_beside?in=task").status == 200
        server.wait_for("Application startup complete", count=3)
        server.wait_for("clean after")
        assert get(server.port, "/").status == 200
        server.signal(signal.SIGTERM)
        server.wait(15)


def test_a_worker_of_gunicorns_exits_with_1_and_is_replaced(tmp_path: Path) -> None:
    need("gunicorn", "uvicorn_worker")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker"]
    with Server(
        [*command, "-b", f"127.0.0.1:{port}", APP],
        tmp_path,
        port=port,
        env=ENV,
        ready="Application startup complete",
        periods={"lame_duck": 0.2, "grace": 5},
    ) as server:
        assert get(port, "/fail_beside?in=task").status == 200
        server.wait_for("Application startup complete", count=2)
        assert re.search(r"[Ww]orker.*exited with code 1\b", server.log)
        assert get(port, "/").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait(15) == 0


def test_a_server_in_a_thread_stops_and_its_program_goes_on(tmp_path: Path) -> None:
    port = free_port()
    with Server(
        [sys.executable, "-m", "e2e.programs", "failing_thread", str(port)],
        tmp_path,
        port=port,
        env=ENV,
        ready="Uvicorn running on",
        periods={"lame_duck": 0.1, "grace": 1},
    ) as server:
        assert get(port, "/fail_beside?in=thread").status == 200
        wait_until(lambda: "server thread has ended" in server.log, "the server's end")
        assert server.wait(10) == 7
