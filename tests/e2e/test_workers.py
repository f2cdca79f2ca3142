"""`graceful-asgi run`: workers under a parent that loses nothing and ends them by a deadline.

The app knows nothing of a drain.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.client import Client, get, is_refused
from support.polling import eventually, wait_until
from support.ports import free_port
from support.server import ENOUGH, ROOM, Server, uvicorn
from support.trial import detail, run_trial

from graceful_asgi._check.load import Load
from graceful_asgi._check.result.verdict import Trial, judge

from .loaded import LIGHT, PLAN, loaded, logged
from .test_deadline import is_cut

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import ThreadPoolExecutor

    from graceful_asgi._check.result.counts import LoadResult


RUN = ("graceful_asgi", "run")
EXIT_MARGIN = 1.0
"""Seconds from a worker's own hard deadline to its SIGKILL."""


def run(
    directory: Path, *args: str, workers: int = 2, app: str = "e2e.app:bare", **options: Any
) -> Server:
    """Return `graceful-asgi run`, with options of `support.server.uvicorn`."""
    args = ("--workers", str(workers), *args)
    return uvicorn(directory, *args, app=app, program=RUN, **options)


def wait_until_up(server: Server, workers: int = 2) -> None:
    server.wait_for("Application startup complete", count=workers)
    wait_until(lambda: answers(server, "/"), "an answer")


def answers(server: Server, path: str) -> bool:
    """Return True if it answers 200. It listens only when its lifespan has started."""
    try:
        return get(server.port, path).status == 200
    except ConnectionRefusedError:
        return False


def pids_that_serve(server: Server) -> set[str]:
    """Ask until two workers have answered, and often enough for a third to show."""
    pids: set[str] = set()

    def ask() -> bool:
        if not answers(server, "/"):
            return False
        pids.update(get(server.port, "/pid").body.decode() for _ in range(40))
        return len(pids) >= 2  # on a busy machine one of them may be quicker for a long time

    wait_until(ask, "an answer from two workers", within=60)
    return pids


def refuses(path: Path) -> bool:
    try:
        with Client(str(path)):
            return False
    except ConnectionRefusedError:
        return True


def cpu_seconds(pid: int) -> float:
    """Return what a process has had of a processor. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask_for_the_gil(server: Server) -> bool:
    """Make a worker hold its GIL; return True if the connection was cut in the end."""
    with Client(server.port) as client:
        client.request("/gil")
        return is_cut(client)


def under_load(directory: Path, program: Sequence[str], app: str) -> Server:
    options = ("--workers", "2", "--no-access-log", "--port", "{port}")
    return loaded(directory, [*program, app, *options])


# -- nothing is lost


def test_no_request_is_lost_at_sigterm_where_uvicorn_alone_loses_some(tmp_path: Path) -> None:
    def trial(program: Sequence[str], app: str) -> Trial:
        server = under_load(tmp_path, program, app)
        return anyio.run(partial(run_trial, server, PLAN, signal_after=0.6, exit_period=30))

    plain = judge([trial(["uvicorn"], "e2e.app:bare")])
    assert plain.lost_total > 0
    for program, app in ((RUN, "e2e.app:bare"), (["uvicorn"], "e2e.app:app")):
        verdict = judge([trial(program, app)])
        assert verdict.clean, verdict.as_dict()
        assert verdict.load.after.served > 20
        assert detail(verdict, "slow request") == "200 complete"
        assert verdict.exit_code == 0


@pytest.mark.parametrize(
    ("program", "app"), [(RUN, "e2e.app:bare"), (("uvicorn",), "e2e.app:app")], ids=lambda v: v[0]
)
def test_no_request_is_lost_while_workers_are_replaced(
    tmp_path: Path, program: Sequence[str], app: str
) -> None:
    server = under_load(tmp_path, program, app)

    async def run_load() -> LoadResult:
        load = Load(LIGHT, port=server.port)

        async def replace_and_stop() -> None:
            await logged(server, {"startup complete": 2})
            await eventually(lambda: load.statistics().sent > 100, "requests")
            load.mark_signalled()
            for turn in (1, 2):
                server.signal(signal.SIGHUP)
                await logged(server, {"]: clean after": 2 * turn, "startup complete": 2 + 2 * turn})
            server.signal(signal.SIGTERM)
            await server.wait_exit()

        return await load.run(until=replace_and_stop, within=90)

    with server:
        result = anyio.run(run_load)
    assert result.total.lost_total == 0, result
    assert result.after.served > 100
    assert server.exit_code == 0


def test_the_port_refuses_while_workers_finish(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    """A copy of the socket in the parent would take connections that nobody ever serves."""
    path = tmp_path / "socket"
    with run(tmp_path, "--uds", str(path), lame_duck=0.1, grace=10.0) as server:
        server.wait_for("Application startup complete", count=2)
        wait_until(lambda: not refuses(path), "a worker that listens")
        with Client(str(path)) as client:
            client.request("/slow?until=go-on")
            server.wait_for("slow began")
            server.signal(signal.SIGTERM)
            server.wait_for(r"draining \(SIGTERM\)", count=2)
            wait_until(lambda: refuses(path), "a closed listener", within=5)
            (tmp_path / "go-on").touch()
            assert client.response().status == 200
        assert server.wait() == 0


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_a_worker_that_has_had_its_requests_is_replaced_and_nothing_is_lost(
    tmp_path: Path, lifespan: str
) -> None:
    """A worker without a lifespan announces its end as well, so that end is no loss."""
    args = ("--limit-max-requests", "20", "--lifespan", lifespan)
    with run(tmp_path, *args, lame_duck=0.2) as server:
        server.wait_for("Started server process", count=2)
        before = pids_that_serve(server)  # an answer to each of 40 requests
        wait_until(lambda: len(pids_that_serve(server) - before) >= 2, "two new workers")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "unexpectedly" not in server.log


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_without_lifespan_drains_before_its_first_request(
    tmp_path: Path, workers: int
) -> None:
    with run(tmp_path, "--lifespan", "off", workers=workers, lame_duck=0.3) as server:
        server.wait_for("drain .* hooked", count=workers)
        server.signal(signal.SIGTERM)
        server.wait_for(r"lame duck \(SIGTERM\)", count=workers)
        assert server.wait() == 0
        assert "lifespan startup" not in server.log, "the app gets no lifespan"


@pytest.mark.parametrize(
    ("program", "app"), [(RUN, "e2e.app:bare"), (("uvicorn",), "e2e.app:app")], ids=lambda v: v[0]
)
def test_workers_without_a_lifespan_that_stop_at_once_leave_no_deaf_listener(
    tmp_path: Path, program: Sequence[str], app: str
) -> None:
    """Their replacements have to accept a connection before they know of any drain."""
    args = ("--workers", "2", "--lifespan", "off")
    with uvicorn(tmp_path, *args, app=app, program=program, lame_duck=0.1) as server:
        server.wait_for("Started server process", count=2)
        for pid in pids_that_serve(server):
            os.kill(int(pid), signal.SIGTERM)
        server.wait_for("Finished server process", count=2)
        server.wait_for("Started server process", count=4)
        wait_until(lambda: answers(server, "/"), "an answer")


# -- the deadline


def test_a_worker_that_holds_the_gil_is_killed_and_the_others_finish(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    """Its event loop stands still, and so do its threads."""
    with run(tmp_path, lame_duck=0.3, grace=2.0) as server:
        wait_until_up(server)
        cut = beside.submit(ask_for_the_gil, server)
        server.wait_for("gil held")
        # The kernel may give a connection to the worker that never looks; ask until one is served.
        slow = [beside.submit(get, server.port, "/slow?s=1&name=x") for _ in range(4)]
        server.wait_for("slow began", count=4)
        server.signal(signal.SIGTERM)
        assert [answer.result().status for answer in slow] == [200] * 4
        assert cut.result()
        assert server.wait(server.hard_deadline + EXIT_MARGIN + ROOM) == 1
        assert server.count("clean after") == 1
        assert is_refused(server.port)


def test_a_worker_that_does_not_run_at_all_is_killed_and_the_others_finish(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    """Neither its signal handler nor its watchdog ever runs: SIGKILL is the one answer."""
    args = ("--timeout-worker-healthcheck", "3")
    with run(tmp_path, *args, lame_duck=0.3, grace=2.0) as server:
        wait_until_up(server)
        stopped = int(min(pids_that_serve(server)))
        os.kill(stopped, signal.SIGSTOP)
        spent = cpu_seconds(server.pid)
        slow = beside.submit(get, server.port, "/slow?s=1")
        server.wait_for("slow began")
        server.signal(signal.SIGTERM)
        assert slow.result().status == 200
        server.wait_for(f"worker {stopped} is past its deadline")
        assert cpu_seconds(server.pid) - spent < 0.5, "the parent waits, and does not poll"
        assert server.wait(server.hard_deadline + EXIT_MARGIN + ROOM) == 1
        assert f"worker {stopped} is past its deadline: SIGKILL" in server.log
        assert is_refused(server.port)


def test_a_worker_that_stops_by_itself_has_time_for_its_last_words_too(tmp_path: Path) -> None:
    with run(tmp_path, lame_duck=ENOUGH) as server:
        wait_until_up(server)
        stopped = int(min(pids_that_serve(server)))
        began = time.monotonic()
        os.kill(stopped, signal.SIGTERM)
        server.wait_for(r"lame duck \(SIGTERM\)")
        os.kill(stopped, signal.SIGSTOP)
        server.wait_for(f"worker {stopped} is past its deadline: SIGKILL")
        assert time.monotonic() - began > server.hard_deadline + EXIT_MARGIN - 0.1
        server.wait_for(f"worker {stopped} ended, exit code -9")


def test_a_worker_that_holds_the_gil_while_serving_is_replaced(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with run(tmp_path, "--timeout-worker-healthcheck", "3") as server:
        wait_until_up(server)
        cut = beside.submit(ask_for_the_gil, server)
        server.wait_for(r"worker \d+ has not answered for 3 s: SIGKILL")
        assert cut.result()
        server.wait_for("Application startup complete", count=3)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_ctrl_c_skips_the_lame_duck_and_counts_once(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    """A terminal sends it to the parent and to each worker."""
    with run(tmp_path, lame_duck=60.0, grace=10.0) as server:
        wait_until_up(server)
        slow = beside.submit(get, server.port, "/slow?s=1")
        server.wait_for("slow began")
        os.killpg(server.pid, signal.SIGINT)
        assert slow.result().status == 200
        assert server.wait(10 + ROOM) == 0
        assert "cancelling" not in server.log


def test_ctrl_c_again_cancels_and_again_ends(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    with run(tmp_path, lame_duck=60.0, grace=60.0, cancel=60.0) as server:
        wait_until_up(server)
        slow = beside.submit(get, server.port, "/slow")
        with Client(server.port) as client:
            client.request("/swallow")
            server.wait_for("swallow began")
            server.wait_for("slow began")
            server.signal(signal.SIGINT)
            server.wait_for(r"draining \(SIGINT\)", count=2)
            server.signal(signal.SIGINT)
            assert slow.result().status == 503
            server.signal(signal.SIGINT)
            assert server.wait(EXIT_MARGIN + ROOM) == 1


def test_ctrl_c_skips_the_lame_duck_of_workers_that_start(tmp_path: Path) -> None:
    """Their last message does not count: they may serve by now."""
    with run(tmp_path, env={"APP_STARTUP": "sleep 1"}, lame_duck=60.0, cleanup=5) as server:
        server.wait_for("lifespan startup", count=2)
        server.signal(signal.SIGINT)
        assert server.wait(1 + ROOM) == 0
        assert server.count("lifespan ended") == 2


def test_a_stop_in_the_middle_of_a_replacement_is_obeyed_at_once(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with run(tmp_path, env={"APP_STARTUP": "sleep 1"}, lame_duck=0.3, grace=5) as server:
        wait_until_up(server)
        slow = beside.submit(get, server.port, "/slow?s=0.6")
        server.wait_for("slow began")
        server.signal(signal.SIGHUP)
        server.wait_for("lifespan startup", count=3)
        server.signal(signal.SIGTERM)
        server.wait_for(r"lame duck \(SIGTERM\)", count=2)
        assert slow.result().status == 200
        assert server.wait() == 0
        assert len(re.findall(r"worker \d+ started", server.log)) == 3


# -- keeping workers


def test_a_replacement_that_does_not_start_leaves_the_workers_as_they_are(tmp_path: Path) -> None:
    module = tmp_path / "deployed.py"
    module.write_text("from e2e.app import bare as app\n")
    with run(tmp_path, app="deployed:app") as server:
        wait_until_up(server)
        before = pids_that_serve(server)
        module.write_text("this is no Python\n")
        server.signal(signal.SIGHUP)
        server.wait_for("the replacement has failed")
        assert pids_that_serve(server) == before
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_workers_are_replaced_one_at_a_time_however_often_it_is_asked_for(tmp_path: Path) -> None:
    with run(tmp_path, lame_duck=1.0) as server:
        wait_until_up(server)
        for turn in range(1, 4):
            server.signal(signal.SIGHUP)
            server.wait_for("replaces 2 workers", count=turn)
            server.wait_for(r"lame duck \(SIGTERM\)", count=turn)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        # In the lines of the parent, which are in order: none starts before the last has ended.
        happened = re.findall(
            r"worker \d+ (started|ended)", server.log.partition("SIGTERM: stops")[0]
        )
        assert len(happened) >= 6, happened
        both, replaced = happened[:2], happened[2:]
        assert both == ["started", "started"]
        assert replaced == (["started", "ended"] * len(replaced))[: len(replaced)]


def test_a_replacement_that_never_serves_is_killed_once_and_given_up(tmp_path: Path) -> None:
    module = tmp_path / "deployed.py"
    module.write_text("from e2e.app import bare as app\n")
    program = ("e2e.impatient",)
    args = ("--workers", "2")
    with uvicorn(tmp_path, *args, app="deployed:app", program=program, lame_duck=0.1) as server:
        wait_until_up(server)
        before = pids_that_serve(server)
        module.write_text("import time\ntime.sleep(60)\n")
        server.signal(signal.SIGHUP)
        server.wait_for("the replacement has failed")
        server.wait_for(r"worker \d+ ended.*, exit code -9")
        assert server.count("s after its start: SIGKILL") == 1
        assert pids_that_serve(server) == before
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.count("unexpectedly") == 0


def test_a_crashed_worker_is_started_again(tmp_path: Path) -> None:
    with run(tmp_path) as server:
        wait_until_up(server)
        before = pids_that_serve(server)
        os.kill(int(min(before)), signal.SIGKILL)
        server.wait_for(r"worker \d+ ended unexpectedly, exit code -9")
        server.wait_for("Application startup complete", count=3)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_worker_that_cannot_be_started_again_does_not_end_the_others(tmp_path: Path) -> None:
    """A worker that has served once may do so again: uvicorn's own parent stops there."""
    module = tmp_path / "deployed.py"
    good = "from e2e.app import bare as app\n"
    module.write_text(good)
    with run(tmp_path, app="deployed:app") as server:
        wait_until_up(server)
        module.write_text("raise SystemExit(3)\n")
        os.kill(int(min(pids_that_serve(server))), signal.SIGKILL)
        server.wait_for(r"worker \d+ ended unexpectedly, exit code 3")
        assert get(server.port, "/").status == 200
        module.write_text(good)
        server.wait_for("Application startup complete", count=3)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_replacement_that_was_starting_at_a_second_sighup_is_replaced_too(tmp_path: Path) -> None:
    """It may have loaded what is outdated by now."""
    with run(tmp_path, env={"APP_STARTUP": "sleep 0.5"}, lame_duck=0.1) as server:
        wait_until_up(server)
        server.signal(signal.SIGHUP)
        server.wait_for("lifespan startup", count=3)
        server.signal(signal.SIGHUP)
        server.wait_for(r"worker \d+ ended, exit code 0", count=3, within=60)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


FAILS_BESIDE = """
import asyncio, contextlib
from starlette.applications import Starlette

@contextlib.asynccontextmanager
async def lifespan(app):
    asyncio.get_running_loop().call_later(0.1, lambda: 1 / 0)
    yield

app = Starlette(lifespan=lifespan)
"""


def test_workers_that_stop_by_a_failure_are_started_again_with_pauses(tmp_path: Path) -> None:
    """They drain, which takes its time: without pauses there would be more and more of them."""
    (tmp_path / "failing.py").write_text(FAILS_BESIDE)
    args = ("--drain-on-unhandled-exception",)
    with run(tmp_path, *args, app="failing:app", lame_duck=60.0) as server:
        server.wait_for(r"worker \d+ stops because of an unhandled exception", count=4)
        began = time.monotonic()
        server.wait_for(r"worker \d+ stops because of an unhandled exception", count=6)
        assert time.monotonic() - began > 2.0, "the pauses after the third and fourth loss"


def test_more_and_fewer_workers_on_request(tmp_path: Path) -> None:
    with run(tmp_path, workers=2, lame_duck=0.1) as server:
        wait_until_up(server)
        server.signal(signal.SIGTTIN)
        server.wait_for("Application startup complete", count=3)
        server.signal(signal.SIGTTOU)
        server.wait_for(r"worker \d+ ended, exit code 0")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert len(re.findall(r"worker \d+ ended, exit code 0", server.log)) == 3


def test_workers_whose_parent_was_killed_finish_their_work_and_go(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with run(tmp_path, lame_duck=0.3, grace=5) as server:
        wait_until_up(server)
        slow = beside.submit(get, server.port, "/slow?s=0.5")
        server.wait_for("slow began")
        os.kill(server.pid, signal.SIGKILL)
        assert slow.result().status == 200
        wait_until(lambda: server.count("clean after") == 2, "the end of both workers")
        wait_until(lambda: is_refused(server.port), "a closed port")


def test_a_unix_socket_is_served_by_workers_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with run(tmp_path, "--uds", str(path), lame_duck=0.1) as server:
        server.wait_for("Application startup complete", count=2)
        wait_until(lambda: not refuses(path), "a worker that listens")
        with Client(str(path)) as client:
            client.request("/")
            assert client.response().status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not path.exists()


# -- one process


def test_one_process_drains_and_exits_in_order(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    with run(tmp_path, "--readiness-path", "/readyz", workers=1, lame_duck=ENOUGH) as server:
        wait_until_up(server, workers=1)
        slow = beside.submit(get, server.port, "/slow?s=1")
        server.wait_for("slow began")
        assert get(server.port, "/readyz").status == 200
        server.terminate()
        assert get(server.port, "/readyz").status == 503
        assert slow.result().status == 200
        assert server.wait() == 0


def test_a_terminal_that_is_closed_is_a_stop(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    with run(tmp_path, workers=1, lame_duck=0.1, grace=5) as server:
        wait_until_up(server, workers=1)
        slow = beside.submit(get, server.port, "/slow?s=0.5")
        server.wait_for("slow began")
        server.signal(signal.SIGHUP)
        assert slow.result().status == 200
        assert server.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_is_closed_is_none_to_what_runs_under_nohup(
    tmp_path: Path, workers: int
) -> None:
    server = run(tmp_path, workers=workers, lame_duck=0.1)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server.__enter__()
    finally:
        signal.signal(signal.SIGHUP, before)
    with contextlib.ExitStack() as stack:
        stack.push(server)
        wait_until_up(server, workers=workers)
        server.signal(signal.SIGHUP)
        if workers > 1:
            server.wait_for("clean after", count=workers)
        assert not get(server.port, "/").closes, "no drain has begun"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_is_heard_while_the_app_is_imported(tmp_path: Path, workers: int) -> None:
    """At once: uvicorn reads its flag after the import, and after a startup that nobody waits for.

    By the one process as well, which may be the first of its container: the kernel keeps from that
    one what it has no handler for.
    """
    importing = "print('importing', flush=True)\nimport time\nwhile True: time.sleep(0.05)\n"
    (tmp_path / "slow_module.py").write_text(importing)
    with run(tmp_path, app="slow_module:app", workers=workers, ready=None, grace=30) as server:
        server.wait_for("importing", count=workers)
        server.signal(signal.SIGTERM)
        assert server.wait(ROOM + 5) == (130 if workers == 1 else 0)
        assert "Traceback" not in server.log


@pytest.mark.parametrize("workers", [1, 2])
def test_the_apps_own_middleware_is_the_one_that_drains(tmp_path: Path, workers: int) -> None:
    """Its policy wins over the defaults, what is given for this server wins over its policy."""
    options = ["--cleanup-period", "9.5", "--liveness-path", "/livez"]
    server = run(tmp_path, *options, workers=workers, app="e2e.app:owned", cancel=0.2)
    for name in ("LAME_DUCK", "GRACE", "CLEANUP"):
        del server.env[f"GRACEFUL_{name}_PERIOD"]
    with server:
        server.wait_for(
            r"hooked .*: lame duck 2.5 s, grace 0.7 s, cancel 0.2 s, cleanup 9.5 s", count=workers
        )
        wait_until(lambda: answers(server, "/own"), "its own readiness")
        assert get(server.port, "/livez").status == 200
        server.signal(signal.SIGTERM)
        server.wait_for("the app's own hook: lame duck", count=workers)
        assert get(server.port, "/own").status == 503
        assert server.wait() == 0
        assert server.count(": lame duck (SIGTERM)") == workers
        assert len(re.findall(r"drain \[\d+\]: clean after", server.log)) == workers


def test_seconds_since_start_are_not_what_a_stop_waits_for(tmp_path: Path) -> None:
    """An idle service is gone as soon as its lame duck is over."""
    with run(tmp_path, lame_duck=0.2, grace=30.0, cancel=30.0, cleanup=30.0) as server:
        wait_until_up(server)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 15


def test_a_closed_standard_input_is_no_harm(tmp_path: Path) -> None:
    """libuv aborts, at the very end, if its own descriptors are among the first three."""
    port = free_port()
    run_app = [sys.executable, "-m", *RUN, "e2e.app:bare", "--loop", "uvloop", "--port", str(port)]
    with Server(
        ["bash", "-c", 'exec "$@" <&-', "bash", *run_app], tmp_path, port=port, ready="running on"
    ) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
