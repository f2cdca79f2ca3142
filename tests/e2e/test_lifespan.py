"""A lifespan that does not end, or fails: named for what it is, and bounded."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from support.server import MARGIN, ROOM, Server, uvicorn

from .test_deadline import assert_stuck

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOOPS = ["asyncio", "uvloop"]
each_signal_and_loop = pytest.mark.parametrize(
    ("number", "loop"), [(signal.SIGTERM, "asyncio"), (signal.SIGINT, "uvloop")]
)
UVICORN = ("uvicorn",)
RUN = ("graceful_asgi", "run")
EXIT_MARGIN = 1.0
"""Seconds from a worker's hard deadline to the moment at which its parent kills it."""


def starting(
    directory: Path, how: str, *args: str, program: Sequence[str] = UVICORN, loop: str = "asyncio"
) -> Server:
    """A server whose startup does not end, with plenty of time for requests."""
    workers = 2 if args else 1
    return uvicorn(
        directory,
        *args,
        program=program,
        app="e2e.app:app" if program == UVICORN else "e2e.app:bare",
        loop=loop,
        env={"APP_STARTUP": how},
        ready="(?s)" + ".*".join(["lifespan startup"] * workers),
        lame_duck=20,
        grace=20,
        cancel=0.7,
        cleanup=0.7,
    )


@each_signal_and_loop
def test_a_startup_that_does_not_end_is_named_and_waited_for_alone(
    tmp_path: Path, number: signal.Signals, loop: str
) -> None:
    """There are no requests that a lame duck or a grace period would be for."""
    with starting(tmp_path, "hang", loop=loop) as server:
        server.signal(number)
        assert server.wait(1.4 + MARGIN + ROOM) == 1
        assert "hard deadline" in server.log
        assert_stuck(server, "lifespan.startup", "misbehave")
        assert "event loop blocked" not in server.log
        assert "lifespan started" not in server.log


@pytest.mark.parametrize("loop", LOOPS)
def test_a_startup_that_blocks_the_loop_is_said_to(tmp_path: Path, loop: str) -> None:
    with starting(tmp_path, "block", loop=loop) as server:
        assert server.signal_until_exit(signal.SIGTERM) == 1
        assert "hard deadline" in server.log
        assert_stuck(server, "lifespan.startup", "misbehave")
        assert "event loop blocked" in server.log


@pytest.mark.parametrize(
    ("program", "workers", "code"),
    [(RUN, 1, 1), (RUN, 2, 1), (UVICORN, 2, 0)],
    ids=["run", "run --workers", "uvicorn --workers"],
)
def test_so_it_is_in_a_process_with_a_parent(
    tmp_path: Path, program: Sequence[str], workers: int, code: int
) -> None:
    """uvicorn's own parent says 0 whatever its workers do."""
    args = ["--workers", str(workers)] if workers > 1 else []
    with starting(tmp_path, "hang", *args, program=program) as server:
        server.signal(signal.SIGTERM)
        assert server.wait(1.4 + MARGIN + EXIT_MARGIN + ROOM) == code
        assert server.count("hard deadline") == workers
        assert_stuck(server, "lifespan.startup", "misbehave")


@each_signal_and_loop
def test_a_startup_that_ends_in_time_is_followed_by_a_clean_drain(
    tmp_path: Path, number: signal.Signals, loop: str
) -> None:
    with uvicorn(
        tmp_path,
        loop=loop,
        env={"APP_STARTUP": "sleep 0.7"},
        ready="lifespan startup",
        lame_duck=20,
        cancel=2,
        cleanup=2,
    ) as server:
        server.signal(number)
        assert server.wait(0.7 + ROOM) == 0
        assert "clean after" in server.log
        assert server.count("lifespan shutdown") == 1


@each_signal_and_loop
def test_a_shutdown_that_hangs_is_named_in_one_line(
    tmp_path: Path, number: signal.Signals, loop: str
) -> None:
    """asyncio cancels it as the loop ends, and Starlette makes forty lines of that.

    The exit has half a second then, and coverage would take a large part of that.
    """
    env = {"APP_SHUTDOWN": "hang"}
    with uvicorn(
        tmp_path, loop=loop, env=env, measured=False, lame_duck=0.1, grace=20, cleanup=0.6
    ) as server:
        server.signal(number)
        assert server.wait(0.7 + MARGIN + ROOM) == 1
        assert_stuck(server, "lifespan.shutdown", "misbehave")
        assert "forced after" in server.log
        assert "Traceback" not in server.log
        assert "CancelledError" not in server.log
        assert "hard deadline" not in server.log


def test_a_shutdown_that_blocks_has_the_cleanup_period_and_no_more(tmp_path: Path) -> None:
    env = {"APP_SHUTDOWN": "block"}
    with uvicorn(tmp_path, env=env, lame_duck=0.1, grace=20, cleanup=0.6) as server:
        server.wait_for("Uvicorn running")
        assert server.signal_until_exit(signal.SIGTERM) == 1
        assert "event loop blocked" in server.log
        assert_stuck(server, "lifespan.shutdown", "misbehave")


@pytest.mark.parametrize("lifespan", ["auto", "on"])
def test_a_shutdown_that_raises_is_not_called_clean(tmp_path: Path, lifespan: str) -> None:
    env = {"APP_SHUTDOWN": "raise"}
    with uvicorn(tmp_path, "--lifespan", lifespan, env=env, lame_duck=0.1) as server:
        server.terminate()
        assert server.wait() == 1
        assert "lifespan raises as APP_SHUTDOWN says" in server.log
        assert re.search(r"WARNING.*lifespan\.shutdown .*failed", server.log)
        assert "clean after" not in server.log
        assert "forced after" in server.log
        assert "hard deadline" not in server.log


def test_an_app_without_a_lifespan_drains_cleanly(tmp_path: Path) -> None:
    """It raises at its startup, and uvicorn calls no shutdown then."""
    (tmp_path / "without.py").write_text(
        "from graceful_asgi import GracefulMiddleware\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "app = GracefulMiddleware(app)\n"
    )
    with uvicorn(tmp_path, app="without:app", lame_duck=0.1) as server:
        server.terminate()
        assert server.wait() == 0
        assert "clean after" in server.log
