"""The public helpers for tests: a server as a process or in a thread, its log and its report."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.command import SERVER, run_python
from support.polling import wait_until

from graceful_asgi import GracefulMiddleware, log
from graceful_asgi._check.server.drain_log import read_report
from graceful_asgi.errors import MisuseError
from graceful_asgi.report import DrainReport, StuckWork
from graceful_asgi.testing import CheckError, LoadPlan, ServerProcess, ThreadedServer

if TYPE_CHECKING:
    from pathlib import Path


def test_pytest_imports_nothing_for_the_plugin_but_the_plugin() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import graceful_asgi.testing;"
        "print(sorted(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['graceful_asgi', 'graceful_asgi.testing']"


def test_it_can_be_imported_where_there_is_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import graceful_asgi.testing as t; print(t)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


# -- the process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "call", "who", "extra"),
    [
        ("h11", "testing.ServerProcess.stop_under_load(Running())", "stop_under_load()", "check"),
        ("uvicorn", "testing.ThreadedServer(None).start()", "ThreadedServer", "run"),
    ],
)
def test_a_missing_extra_is_named_with_what_installs_it(
    missing: str, call: str, who: str, extra: str
) -> None:
    ended = run_python(
        f"""
        import sys
        from graceful_asgi import testing
        class Running:
            running = True
        sys.modules[{missing!r}] = None
        try:
            {call}
        except ImportError as error:
            print(error)
        """
    )
    assert ended.stdout == (
        f"{who} needs {missing}, which is not installed: pip install 'graceful-asgi[{extra}]'\n"
    )


def test_a_server_is_started_told_to_stop_and_waited_for() -> None:
    with ServerProcess([*SERVER, "exits 7", "{port}"]) as server:
        assert server.running
        assert str(server.port) in server.url
        server.signal()
        assert server.wait(within=10) == 7
        assert server.exit_code == 7
        assert server.seconds_to_exit is not None
    assert server.log == "behaviour: exits 7\n"
    assert server.drain_report is None


def test_a_server_that_still_runs_is_a_timeout_with_its_log() -> None:
    with ServerProcess([*SERVER, "ignores SIGTERM", "{port}"]) as server:
        server.signal()
        with pytest.raises(TimeoutError, match=r"(?s)still runs after 0.1 s.*ignores SIGTERM"):
            server.wait(within=0.1)
    assert not server.running


def test_what_does_not_start_is_an_error_with_its_log_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = ServerProcess([*SERVER, "exits early", "{port}"])
    with pytest.raises(CheckError, match="exits early"):
        server.__enter__()
    assert server.log == "behaviour: exits early\n"
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_command_is_an_error() -> None:
    with pytest.raises(CheckError, match="--port is not for you to give"):
        ServerProcess("main:app --port 8000")
    empty: list[str | list[str]] = ["", []]
    for nothing in empty:
        with pytest.raises(CheckError, match="an empty command starts no server"):
            ServerProcess(nothing)


def test_a_verdict_on_a_server_that_drops_one_request() -> None:
    plan = LoadPlan(keep_alive_clients=0, fresh_clients=0, slow_path="/slow", single_after=0.0)
    with ServerProcess([*SERVER, "serves", "{port}"]) as server:
        verdict = server.stop_under_load(plan, signal_after=0.3)
    assert verdict.lost_total == 1
    assert not verdict.clean
    assert server.exit_code == -15


@pytest.mark.parametrize("name", ["path", "slow_path", "websocket_path", "post_path"])
@pytest.mark.parametrize("path", ["report", "", "/a b", "GET report", "/é", 3])
def test_a_plan_names_a_bad_path(name: str, path: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*: must be a path that begins with /"):
        LoadPlan(**{name: path})
    assert LoadPlan(slow_path="POST /report?x=1").endpoint("--slow-path") is not None


def test_a_call_before_the_start_is_named() -> None:
    server = ServerProcess("main:app")
    for call in (lambda: server.wait(0), lambda: server.signal(), lambda: server.pid):
        with pytest.raises(MisuseError, match=r"before start\(\)"):
            call()
    server.kill()


def test_load_needs_a_server_that_runs() -> None:
    server = ServerProcess([*SERVER, "serves", "{port}"])
    with pytest.raises(MisuseError, match="call start"):
        server.stop_under_load()
    server.kill()


# -- the report -----------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_a_report_is_read_as_it_was_logged(caplog: pytest.LogCaptureFixture, clean: bool) -> None:
    stuck = (
        StuckWork("http", "GET", "/a b", 18.2, "response not started", "/app/x.py:41 in render"),
        StuckWork("task", "", "export", 3.0, "running", ""),
    )
    report = DrainReport(
        reason="SIGTERM",
        completed=4,
        closed=5,
        cancelled=0 if clean else 1,
        aborted=0 if clean else 2,
        rejected=3,
        server_errors=0 if clean else 2,
        elapsed=7.3,
        stuck=() if clean else stuck,
    )
    with caplog.at_level(logging.INFO, logger="graceful_asgi"):
        log.all_stuck(report.stuck)
        log.finished(report)
    assert read_report(f"INFO: before\n{caplog.text}") == report


def test_a_log_without_a_report_has_none() -> None:
    assert read_report("INFO:     Application shutdown complete.\n") is None


# -- in a thread ----------------------------------------------------------------------------------


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once, or never, or fail to start."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/hang":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await anyio.sleep_forever()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def _fails(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("no database")


@pytest.mark.parametrize("is_graceful", [True, False])
@pytest.mark.parametrize("path", ["/", "/hang"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_in_a_thread_ends_at_once(is_graceful: bool, path: str, loop: str) -> None:
    """Though the lame duck is 5 s, and a client has left a response unread."""
    app: Any = GracefulMiddleware(_app) if is_graceful else _app
    threads = set(threading.enumerate())
    with ThreadedServer(app, loop=loop) as server:
        answer = urllib.request.urlopen(server.url + path, timeout=10)
        assert answer.read(1) in (b"o", b"x")
        began = time.monotonic()
    assert time.monotonic() - began < 4, "0.2 to 0.5 s on an idle machine"
    wait_until(lambda: set(threading.enumerate()) <= threads, "its threads have ended")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url, timeout=1)
    answer.close()


def test_an_app_in_a_thread_that_does_not_start_is_an_error() -> None:
    with pytest.raises(CheckError, match="the app did not start"):
        ThreadedServer(_fails, lifespan="on").start()


def test_a_server_in_a_thread_is_used_in_order() -> None:
    server = ThreadedServer(_app)
    server.stop()
    with pytest.raises(MisuseError, match="before start"):
        _ = server.url
    with server, pytest.raises(MisuseError, match="called twice"):
        server.start()
    server.stop()
