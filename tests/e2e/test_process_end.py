"""From the end of the drain to the end of the process: what keeps it is named, and given up."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from support.client import get
from support.need import need
from support.server import ROOM, uvicorn

from .reloading import change

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

APP = "e2e.lingering_app:app"


@pytest.mark.parametrize(
    ("kind", "named", "loop", "number"),
    [
        ("thread", "thread poller", "asyncio", signal.SIGTERM),
        ("thread", "thread poller", "asyncio", signal.SIGINT),
        ("executor", "thread asyncio_0", "asyncio", signal.SIGINT),
        ("executor", "thread uvloop_0", "uvloop", signal.SIGTERM),
        ("atexit", "atexit function in_atexit", "asyncio", signal.SIGTERM),
        ("task", "task stubborn task", "asyncio", signal.SIGTERM),
        ("task", "task stubborn task", "asyncio", signal.SIGINT),  # cancelled in another way
        ("generator", "lingering_app.py", "asyncio", signal.SIGINT),
        ("child", "child process poller child", "asyncio", signal.SIGTERM),
    ],
)
def test_what_keeps_a_drained_process_is_named_after_a_second_and_given_up(
    tmp_path: Path, kind: str, named: str, loop: str, number: signal.Signals
) -> None:
    """The process has what is left of the cleanup period, not of all periods."""
    with uvicorn(
        tmp_path,
        app=APP,
        loop=loop,
        env={"APP_LINGERS": kind},
        lame_duck=0.1,
        grace=20,
        cleanup=2.5,
    ) as server:
        server.signal(number)
        server.wait_for(r"the drain is over, and [12]\.\d s later the process still waits for")
        assert server.wait(0.1 + 2.5 + ROOM) == 1
        assert "clean after" in server.log
        assert "lifespan shutdown" in server.log
        warning, final = server.log.split("still waits for")[1:]
        assert named in warning.splitlines()[0]
        assert named in final.splitlines()[0]
        assert "hard deadline" in server.log
        assert "lingering_app.py" in final or kind == "child"
        assert "# lingers here" in final or kind in ("task", "generator", "child")
        assert "Traceback" not in server.log


def test_a_process_that_takes_less_than_a_second_is_not_spoken_of(tmp_path: Path) -> None:
    with uvicorn(tmp_path, app=APP, measured=False, lame_duck=0.1) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "still waits for" not in server.log


@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_a_process_pool_that_was_used_keeps_no_worker(tmp_path: Path, context: str) -> None:
    """multiprocessing joins a child's children before its threads; the pool needs it the other way
    round. Plain uvicorn is killed by its signal before it comes to that."""
    with uvicorn(
        tmp_path,
        "--workers",
        "2",
        app=APP,
        ready=None,
        measured=False,  # its exit takes less than a second then
        lame_duck=0.1,
        cleanup=20,
    ) as server:
        server.wait_for_workers(2)
        assert get(server.port, f"/job?context={context}").body == b"job done"
        server.signal(signal.SIGTERM)
        assert server.wait(18) == 0
        assert server.count("clean after") == 2
        assert "still waits for" not in server.log


def test_a_process_pool_that_was_used_holds_no_reload_up(tmp_path: Path) -> None:
    need("watchfiles")
    module = tmp_path / "reloaded.py"
    module.write_text("from e2e.lingering_app import app\n")
    with uvicorn(
        tmp_path, "--reload", "--reload-delay", "0.1", app="reloaded:app", cleanup=60
    ) as server:
        server.wait_for_workers(1)
        assert get(server.port, "/job").body == b"job done"
        change(server, module, "from e2e.lingering_app import app  # saved\n")
        server.wait_for("Application startup complete", count=2)
        server.signal(signal.SIGTERM)
        assert server.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("kind", ["thread", "executor", "atexit", "task", "child"])
def test_what_keeps_a_process_holds_no_reload_up(tmp_path: Path, kind: str) -> None:
    """Plain uvicorn dies of its signal there. The cleanup period is for the lifespan alone."""
    need("watchfiles")
    module = tmp_path / "reloaded.py"
    module.write_text("from e2e.lingering_app import app\n")
    env = {"APP_LINGERS": kind}
    args = ("--reload", "--reload-delay", "0.1")
    with uvicorn(tmp_path, *args, app="reloaded:app", env=env, cleanup=60) as server:
        server.wait_for("Application startup complete")
        change(server, module, "from e2e.lingering_app import app  # saved\n")
        server.wait_for("Application startup complete", count=2)
        server.wait_for("after its drain the process ends now; it still waits for")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_for_the_whole_group_lets_a_forked_pool_finish_its_job(
    tmp_path: Path, number: signal.Signals, beside: ThreadPoolExecutor
) -> None:
    """The children inherit uvicorn's handler. On plain uvicorn it changes nothing there."""
    with uvicorn(tmp_path, app=APP, lame_duck=0.1, grace=10, cleanup=10) as server:
        answer = beside.submit(get, server.port, "/job?s=1.5&context=fork")
        server.wait_for("job began")
        os.killpg(server.pid, number)
        assert answer.result().body == b"job done"
        assert server.wait() == 0
        assert "clean after" in server.log
        assert "server error" not in server.log
        assert "Traceback" not in server.log


def test_a_job_that_a_signal_for_the_whole_group_has_ended_is_named_in_the_report(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    """A spawned child has no handler: the signal ends it, on plain uvicorn as well."""
    with uvicorn(tmp_path, app=APP, lame_duck=0.1, grace=10, cleanup=10) as server:
        answer = beside.submit(get, server.port, "/job?s=30&context=spawn")
        server.wait_for("job began")
        os.killpg(server.pid, signal.SIGTERM)
        assert answer.result().status == 500
        assert server.wait() == 0
        assert re.search(r"clean after .*1 completed, .*; 1 of the completed with a", server.log)
