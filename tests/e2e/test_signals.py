"""Signals in every order and at every moment."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get, is_refused
from support.polling import wait_until
from support.server import ENOUGH, MARGIN, ROOM, Server, uvicorn

from .test_deadline import is_cut

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

LOOPS = ["asyncio", "uvloop"]


def test_sigterm_again_changes_nothing(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    """gunicorn repeats SIGTERM every second to a worker it wants gone."""
    with uvicorn(tmp_path, lame_duck=ENOUGH, grace=20) as server:
        slow = beside.submit(get, server.port, "/slow?until=go-on&name=old")
        server.wait_for("slow began old")
        server.terminate()
        for _ in range(3):
            server.signal(signal.SIGTERM)
            server.wait_for("SIGTERM ignored, already lame duck")
        assert get(server.port, "/").status == 200
        server.wait_for(r"\]: draining \(")
        server.signal(signal.SIGTERM)
        server.wait_for("SIGTERM ignored, already draining")
        (tmp_path / "go-on").touch()
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("SIGTERM ignored, already lame duck") == 1


def test_sigterm_again_as_the_process_exits_does_not_kill_it(tmp_path: Path) -> None:
    """uvicorn's handlers have gone by then."""
    (tmp_path / "lingering.py").write_text(
        "import atexit, time\n"
        "from e2e.app import app, say\n"
        "atexit.register(lambda: [say('lingers'), time.sleep(0.5)])\n"
    )
    with uvicorn(tmp_path, app="lingering:app", lame_duck=0.1, cleanup=5) as server:
        server.terminate()
        server.wait_for("lingers")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_sigint_skips_the_lame_duck_and_loses_nothing(
    tmp_path: Path, loop: str, beside: ThreadPoolExecutor
) -> None:
    with uvicorn(tmp_path, loop=loop, lame_duck=30, grace=5) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGINT)
        wait_until(lambda: is_refused(server.port), "connects are refused")
        assert slow.result().status == 200
        assert server.wait(15) == 0
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") == 1


@pytest.mark.parametrize(
    ("loop", "first"), [("asyncio", signal.SIGINT), ("uvloop", signal.SIGTERM)]
)
def test_sigint_during_a_drain_cancels_at_once(
    tmp_path: Path, loop: str, first: signal.Signals
) -> None:
    """An endless stream and Ctrl+C: with asyncio from Python 3.12 on, uvicorn itself hangs here.

    Before the listener has closed as well as after it.
    """
    with (
        uvicorn(tmp_path, loop=loop, lame_duck=30, grace=30) as server,
        Client(server.port) as slow,
        Client(server.port) as stream,
    ):
        slow.request("/slow?name=old")
        stream.request("/stream?n=100000")
        server.wait_for("slow began old")
        server.wait_for('"GET /stream')
        server.signal(first)
        server.wait_for(r"\]: lame duck \(" if first == signal.SIGTERM else r"\]: draining \(")
        server.signal(signal.SIGINT)
        assert slow.response().status == 503
        assert is_cut(stream)
        assert server.wait(15) == 1
        assert server.count("lifespan shutdown") == 1
        assert "cancelling" in server.log


def test_a_further_sigint_exits_at_once(tmp_path: Path) -> None:
    with (
        uvicorn(tmp_path, lame_duck=30, grace=30, cancel=30) as server,
        Client(server.port) as client,
    ):
        client.request("/swallow")
        server.wait_for("swallow began")
        server.signal(signal.SIGINT)
        server.wait_for(r"\]: draining \(")
        server.signal(signal.SIGINT)
        server.wait_for(r"\]: cancelling \(")
        server.signal(signal.SIGINT)
        assert server.wait(15) == 1
        assert "stuck: http GET /swallow" in server.log


def test_a_further_sigint_exits_at_once_from_a_blocked_event_loop(tmp_path: Path) -> None:
    with uvicorn(tmp_path, lame_duck=30, grace=30) as server, Client(server.port) as client:
        client.request("/block")
        server.wait_for("block began")
        # The handlers run between byte codes, and time.sleep goes on after them.
        assert server.signal_until_exit(signal.SIGINT) == 1


ELSEWHERE = """
import signal, threading, time
from e2e.app import app
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
"""
"""An app whose main thread is interrupted by no signal: the kernel gives them to another thread.

Python's handlers run in the main thread, when it wakes. The same happens, rarely, to a signal that
comes just before the main thread begins to wait.
"""


def elsewhere(directory: Path, loop: str, ready: str = "Uvicorn running on", **env: str) -> Server:
    (directory / "elsewhere.py").write_text(ELSEWHERE)
    server = uvicorn(directory, app="elsewhere:app", loop=loop, ready=ready, env=env)
    server.set_period("lame_duck", 0.1 if "APP_SHUTDOWN" in env else 20)
    server.set_period("cleanup", 60 if "APP_SHUTDOWN" in env else 0.9)
    return server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_signal_that_does_not_wake_the_main_thread_stops_a_startup_that_hangs(
    tmp_path: Path, loop: str, number: signal.Signals
) -> None:
    with elsewhere(tmp_path, loop, ready="lifespan startup", APP_STARTUP="hang") as server:
        server.wait_for("hooked uvicorn")
        server.signal(number)
        assert server.wait(1.4 + MARGIN + ROOM) == 1
        assert "stuck: lifespan" in server.log


@pytest.mark.parametrize("loop", LOOPS)
def test_a_signal_that_does_not_wake_the_main_thread_is_handled_at_each_stage_of_a_drain(
    tmp_path: Path, loop: str
) -> None:
    with elsewhere(tmp_path, loop) as server, Client(server.port) as client:
        client.request("/slow?name=old")
        server.wait_for("slow began old")
        server.terminate()
        server.signal(signal.SIGINT)
        assert client.response().status == 503
        assert server.wait(15) == 1
    with elsewhere(tmp_path, loop, APP_SHUTDOWN="hang") as server:
        server.terminate()
        server.wait_for("lifespan shutdown")
        # The first would cancel work, of which there is none.
        assert server.signal_until_exit(signal.SIGINT) == 1


def test_sigterm_during_a_slow_startup_lets_it_end_and_stops(tmp_path: Path) -> None:
    env = {"APP_STARTUP": "sleep 1"}
    with uvicorn(tmp_path, env=env, ready="lifespan startup", lame_duck=0.3, cleanup=5) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.count("lifespan started") == 1
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_sigterm_before_the_server_is_hooked_is_not_forgotten(tmp_path: Path, loop: str) -> None:
    env = {"APP_BEFORE_HOOK": "1"}
    with uvicorn(
        tmp_path, app="e2e.app:late", loop=loop, env=env, ready="not hooked yet", lame_duck=0.3
    ) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "(SIGTERM)" in server.log
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") == 1
