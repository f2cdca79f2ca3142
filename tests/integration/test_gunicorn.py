"""gunicorn with uvicorn-worker: every way in which it stops a worker begins a drain."""

from __future__ import annotations

import os
import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from e2e.loaded import PLAN, loaded, logged
from support.client import Client, get, is_refused
from support.load import EndpointLoad
from support.need import need, need_program
from support.polling import PATIENCE, wait_until
from support.ports import free_port
from support.server import STARTS, Server
from support.trial import detail, run_trial

from graceful_asgi._check.load import Load
from graceful_asgi._check.result.verdict import Trial, judge

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from graceful_asgi._check.result.counts import LoadResult


WORKER = ("-k", "uvicorn_worker.UvicornWorker")


def gunicorn(directory: Path, *args: str, **periods: float) -> Server:
    need("gunicorn", "uvicorn_worker")
    port = free_port()
    # Not `python -m gunicorn`, which cannot start itself again (SIGUSR2).
    command = [need_program("gunicorn"), *WORKER, "-b", f"127.0.0.1:{port}", *args]
    return Server(
        [*command, "e2e.app:app"],
        directory,
        port=port,
        ready="Application startup complete",
        periods={"cleanup": 10.0, **periods},
    )


def has_ended(pid: str) -> bool:
    """Return True if a child of somebody's has ended, whether its parent has looked or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def under_load(directory: Path, *args: str) -> Server:
    need("gunicorn", "uvicorn_worker")
    command = ["gunicorn", *WORKER, "-b", "127.0.0.1:{port}", *args, "--no-control-socket"]
    return loaded(directory, [*command, "e2e.app:app"])


# -- one worker


def test_gunicorn_drains_its_worker(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    with gunicorn(tmp_path, lame_duck=3.0, grace=20) as server:
        slow = beside.submit(get, server.port, "/slow?s=4&name=old")
        server.wait_for("slow began old")
        server.terminate()
        assert get(server.port, "/").closes
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 1
        assert server.count("clean after") == 1
        assert "was sent SIG" not in server.log


def test_gunicorn_gets_the_heartbeat_of_a_worker_that_drains_for_longer_than_its_timeout(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    """uvicorn's own stops with the main loop: a worker at its max_requests is then killed."""
    # The timeout counts from the fork: what a worker needs is imported before it.
    (tmp_path / "conf.py").write_text("import starlette.applications, uvloop, graceful_asgi")
    options = ("-c", "conf.py", "--timeout", "3", "--max-requests", "1")
    with gunicorn(tmp_path, *options, lame_duck=0.3, grace=30) as server:
        slow = beside.submit(get, server.port, "/slow?s=8&name=old")
        server.wait_for("slow began old")
        assert get(server.port, "/").status == 200
        server.wait_for(r"\]: draining \(limit_max_requests\)")
        assert slow.result().status == 200
        assert "WORKER TIMEOUT" not in server.log
        server.wait_for("Booting worker", count=2, within=STARTS)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


# -- nothing is lost


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_no_request_is_lost_as_the_service_stops(tmp_path: Path, number: signal.Signals) -> None:
    def trial() -> Trial:
        server = under_load(tmp_path, "--workers", "2")
        run = partial(run_trial, server, PLAN, answers=20, signal_after=0.6, exit_period=30)
        return anyio.run(partial(run, number=number))

    verdict = judge([trial() for _ in range(2)])
    assert verdict.clean, verdict.as_dict()
    assert verdict.load.before.served > 20
    assert detail(verdict, "slow request") == "200 complete"
    assert verdict.exit_code == 0


FIRST_HAS_A_LIMIT = """
def pre_fork(server, worker):
    worker.config.limit_max_requests = 200 if worker.age == 1 else None
"""
"""The effect of `--max-requests`, on one worker. Limits at random may end both at once, or take
longer to reach than the test has: see the how-to."""


@pytest.mark.parametrize(
    ("number", "conf", "gone", "started"),
    [
        pytest.param(signal.SIGHUP, "", 2, 4, id="SIGHUP"),
        pytest.param(signal.SIGTTOU, "", 1, 2, id="SIGTTOU"),
        pytest.param(None, FIRST_HAS_A_LIMIT, 1, 3, id="max_requests"),
    ],
)
def test_no_request_is_lost_as_workers_come_and_go(
    tmp_path: Path, number: signal.Signals | None, conf: str, gone: int, started: int
) -> None:
    (tmp_path / "conf.py").write_text(conf)
    server = under_load(tmp_path, "--workers", "2", "-c", "conf.py")

    async def run_load() -> LoadResult:
        load = Load(PLAN, port=server.port)

        async def change_and_stop() -> None:
            await anyio.sleep(0.6)
            await logged(server, {"startup complete": 2})
            load.mark_signalled()
            if number is not None:
                server.signal(number)
            await logged(server, {"Worker exiting": gone, "startup complete": started})
            server.signal(signal.SIGTERM)
            await server.wait_exit()

        return await load.run(until=change_and_stop, within=60)

    with server:
        result = anyio.run(run_load)
        log = server.log_path.read_text()
    assert result.total.lost_total == 0, result
    assert result.after.served > 20
    assert server.exit_code == 0
    assert ("Maximum request limit of 200 exceeded" in log) == (number is None)
    assert "was sent SIG" not in log
    assert "forced after" not in log


def test_the_next_gunicorn_takes_over_and_the_old_workers_leave_at_once(tmp_path: Path) -> None:
    """At USR2 the parent starts another parent, which has the sockets for workers of its own."""
    with gunicorn(tmp_path, lame_duck=0, grace=60) as server:
        server.signal(signal.SIGUSR2)
        server.wait_for("hooked ", count=2, within=STARTS)
        (taker,) = re.findall(r"\[(\d+)\] \[INFO\] Starting gunicorn", server.log)[1:]
        try:
            server.signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == 0
            assert [get(server.port, "/").status for _ in range(10)] == [200] * 10
        finally:
            os.kill(int(taker), signal.SIGTERM)
            wait_until(lambda: is_refused(server.port), "the next gunicorn stops")
    assert server.count("forced after") == 0


def test_no_request_is_lost_as_the_next_gunicorn_takes_over(tmp_path: Path) -> None:
    server = gunicorn(tmp_path, "--workers", "2", "--no-control-socket", lame_duck=0.5, grace=10)

    async def run_load() -> LoadResult:
        load = EndpointLoad(PLAN, port=server.port)

        async def take_over() -> None:
            await anyio.sleep(0.6)
            await logged(server, {"startup complete": 2})
            load.mark_signalled()
            server.signal(signal.SIGUSR2)
            await logged(server, {"startup complete": 4})
            server.signal(signal.SIGTERM)
            await server.wait_exit()
            await anyio.sleep(0.3)  # the next gunicorn alone
            await load.leave()

        return await load.run(until=take_over, within=60)

    with server:
        try:
            result = anyio.run(run_load)
        finally:
            parents = re.findall(r"\[(\d+)\] \[INFO\] Starting gunicorn", server.log)
            for taker in parents[1:]:
                os.kill(int(taker), signal.SIGTERM)
            wait_until(lambda: is_refused(server.port), "the next gunicorn stops")
    assert result.total.lost_total == 0, result
    assert result.refused == 0
    assert result.after.served > 20
    assert server.exit_code == 0


# -- told to hurry


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_skips_the_lame_duck_and_waits_for_what_is_in_flight(
    tmp_path: Path, number: signal.Signals, beside: ThreadPoolExecutor
) -> None:
    with gunicorn(tmp_path, lame_duck=60, grace=10) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.signal(number)
        server.wait_for(r"\]: draining \(SIGQUIT\)")
        wait_until(lambda: is_refused(server.port), "connects are refused")
        assert slow.result().status == 200
        assert server.wait(PATIENCE) == 0
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") >= 1
        assert "was sent SIG" not in server.log


def test_a_quick_stop_is_heard_by_a_worker_that_is_only_starting(tmp_path: Path) -> None:
    """uvicorn-worker's handler takes it, and does nothing: the parent would wait, and kill."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", *WORKER, "-b", f"127.0.0.1:{port}"]
    with Server(
        [*command, "e2e.app:late"],
        tmp_path,
        port=port,
        env={"APP_BEFORE_HOOK": "1"},
        ready="not hooked yet",
        periods={"lame_duck": 60.0, "cleanup": 10.0},
    ) as server:
        server.signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 0
        server.wait_for(r"\]: clean after [\d.]+ s \(SIGQUIT\)")


def test_ctrl_c_in_a_terminal_counts_once(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    """The terminal sends SIGINT to the worker as well, and its parent adds SIGQUIT."""
    with gunicorn(tmp_path, lame_duck=60, grace=10) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        os.killpg(server.pid, signal.SIGINT)
        assert slow.result().status == 200
        assert server.wait(PATIENCE) == 0
        assert "cancelling" not in server.log


def test_a_quick_stop_during_a_drain_cancels(tmp_path: Path) -> None:
    """gunicorn gives 2 s then, and kills: it is stopped until a slow machine has had enough."""
    with (
        gunicorn(tmp_path, lame_duck=60, grace=60) as server,
        Client(server.port) as client,
    ):
        client.request("/slow?name=old")
        server.wait_for("slow began old")
        server.terminate()
        (worker,) = re.findall(r"Booting worker with pid: (\d+)", server.log)
        server.signal(signal.SIGINT)
        server.wait_for(r"\]: cancelling")
        os.kill(server.pid, signal.SIGSTOP)
        assert client.response().status == 503
        wait_until(lambda: has_ended(worker), "the worker ends")
        os.kill(server.pid, signal.SIGCONT)
        assert server.wait(PATIENCE) == 0
        assert server.count("lifespan shutdown") == 1
        assert "was sent SIG" not in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_with_work_that_swallows_its_end_is_gone_by_its_own_deadline(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Not by gunicorn's `graceful_timeout` and SIGKILL, at a quick stop either."""
    with (
        gunicorn(
            tmp_path, "--graceful-timeout", "300", lame_duck=0, grace=0.2, cancel=0.2, cleanup=0.5
        ) as server,
        Client(server.port) as client,
    ):
        client.request("/swallow")
        server.wait_for("swallow began")
        server.signal(number)
        assert client.response().status == 503
        assert server.wait(PATIENCE) == 0
        server.wait_for(r"exited with code 1\.")
        assert "was sent SIG" not in server.log


# -- how long it gives


def test_what_gunicorn_gives_is_held_against_the_policy(tmp_path: Path) -> None:
    options = ("--graceful-timeout", "3")
    with gunicorn(tmp_path, *options, lame_duck=1, grace=5, cleanup=0.5) as server:
        server.wait_for("gunicorn's graceful_timeout is 3 s: raise that to 7.5, or lower")
        assert server.count("add up to") == 1
