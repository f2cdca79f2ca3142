"""`graceful-asgi run` and an app that does not start: the exit code, and what the log names."""

from __future__ import annotations

import signal
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from support.client import get
from support.server import ROOM, Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

RUN = ("graceful_asgi", "run")
DID_NOT_START = 3

BROKEN = {
    "raises": 'raise RuntimeError("no database")',
    "exits": 'import sys\nsys.exit("no database")',
    "exits as if all was well": "import sys\nsys.exit(0)",
    "raises in its factory": """
        def app():
            raise RuntimeError("no database")
        """,
    "exits in its factory": """
        def app():
            raise SystemExit(7)
        """,
    "has no such module": "import no_such_module",
    "has no app": "application = None",
    "raises at startup": """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        """,
}


def run(directory: Path, source: str, workers: int, **periods: Any) -> Server:
    (directory / "broken.py").write_text(textwrap.dedent(source))
    arguments = ["--workers", str(workers)]
    if "def app():" in source:
        arguments.append("--factory")
    return uvicorn(directory, *arguments, app="broken:app", program=RUN, ready=None, **periods)


# The parent sees of a worker that ends as it starts no more than its exit code: one for each way.
@pytest.mark.parametrize(
    ("fault", "workers"),
    [
        *((fault, 1) for fault in BROKEN),
        *((fault, 2) for fault in ("raises", "exits as if all was well", "raises at startup")),
    ],
)
def test_an_app_that_does_not_start_ends_the_command_with_3(
    tmp_path: Path, fault: str, workers: int
) -> None:
    source = BROKEN[fault]
    with run(tmp_path, source, workers) as server:
        assert server.wait(20 + ROOM) == DID_NOT_START
        if "no database" in source:
            assert "no database" in server.log
        else:
            assert "broken" in server.log
        if workers > 1:
            assert "the app does not start" in server.log


def test_an_app_that_crashes_each_worker_before_it_serves_is_given_up(tmp_path: Path) -> None:
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    with run(tmp_path, crash, 2) as server:
        assert server.wait(20 + ROOM) == DID_NOT_START
        assert server.count("ended unexpectedly, exit code -11") == 2
        assert "the app does not start" in server.log


def test_a_worker_that_crashed_once_as_it_started_is_started_again(tmp_path: Path) -> None:
    crash_once = """
        import os, pathlib, signal
        try:
            pathlib.Path("crashed").touch(exist_ok=False)
        except FileExistsError:
            from e2e.app import bare as app
        else:
            os.kill(os.getpid(), signal.SIGSEGV)
        """
    with run(tmp_path, crash_once, 2) as server:
        server.wait_for_workers(2)
        assert get(server.port, "/").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_startup_that_hangs_is_no_clean_stop(tmp_path: Path, workers: int) -> None:
    hangs = """
        import asyncio

        async def app(scope, receive, send):
            await receive()
            print("hangs", flush=True)
            await asyncio.sleep(600)
        """
    with run(tmp_path, hangs, workers) as server:
        server.wait_for("hangs", count=workers)
        server.signal(signal.SIGTERM)
        assert server.wait(server.hard_deadline + 1 + ROOM) != 0


@pytest.mark.parametrize("workers", [1, 2])
def test_sigquit_drains(tmp_path: Path, beside: ThreadPoolExecutor, workers: int) -> None:
    """Ctrl+\\ in a terminal: uvicorn leaves the default, which dumps core."""
    source = "from e2e.app import bare as app"
    with run(tmp_path, source, workers, lame_duck=0.2, grace=10) as server:
        server.wait_for_workers(workers)
        slow = beside.submit(get, server.port, "/slow?s=1.5")
        server.wait_for("slow began")
        server.signal(signal.SIGQUIT)
        server.wait_for(r"draining \(SIGTERM\)")
        assert slow.result().body == b"slow, but complete"
        assert server.wait() == 0


def test_one_worker_is_counted_as_one(tmp_path: Path) -> None:
    with run(tmp_path, "from e2e.app import bare as app", 2, lame_duck=0.1) as server:
        server.wait_for("Application startup complete", count=2)
        server.signal(signal.SIGTTOU)
        server.wait_for("1 worker from now on")
        server.wait_for(r"worker \d+ ended, exit code 0")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "SIGTERM: stops 1 worker\n" in server.log
