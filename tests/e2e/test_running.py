"""Every way of running uvicorn that has a `Server` to stop, and every way of stopping it."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get, is_refused
from support.need import need
from support.polling import wait_until
from support.ports import free_port
from support.server import ENOUGH, Server, uvicorn

from .reloading import change
from .test_deadline import is_cut

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

LOOPS = ["asyncio", "uvloop"]


def program(directory: Path, name: str, *ports: int, **periods: float) -> Server:
    """A program of `programs.py`, with its servers up."""
    port = ports[0] if ports else free_port()
    command = [sys.executable, "-m", "e2e.programs", name, *map(str, ports or (port,))]
    ready = r"(?s)" + ".*".join(["Uvicorn running on"] * max(1, len(ports)))
    return Server(command, directory, port=port, ready=ready, periods=periods)


# -- the command line


@pytest.mark.parametrize("loop", LOOPS)
def test_workers_drain_each_for_itself(
    tmp_path: Path, loop: str, beside: ThreadPoolExecutor
) -> None:
    with uvicorn(tmp_path, "--workers", "2", loop=loop, lame_duck=ENOUGH, grace=10) as server:
        server.wait_for_workers(2)
        slow = [beside.submit(get, server.port, f"/slow?s=2&name={n}") for n in range(8)]
        server.wait_for("slow began", count=8)
        server.signal(signal.SIGTERM)
        server.wait_for(r"\]: lame duck \(SIGTERM\)", count=2)
        assert get(server.port, "/").closes
        assert [answer.result().status for answer in slow] == [200] * 8
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 2
        assert len(re.findall(r"drain \[\d+\]: clean after", server.log)) == 2


def test_a_worker_that_hangs_ends_by_its_hard_deadline_and_so_does_the_parent(
    tmp_path: Path,
) -> None:
    """The parent joins its workers without a limit."""
    with uvicorn(tmp_path, "--workers", "2", lame_duck=0.2, grace=0.3) as server:
        server.wait_for_workers(2)
        with Client(server.port) as client:
            client.request("/block")
            server.wait_for("block began")
            server.signal(signal.SIGTERM)
            assert is_cut(client)
        server.wait()
        assert "hard deadline" in server.log


def test_reload_has_no_lame_duck_and_is_not_held_up_by_an_endless_stream(
    tmp_path: Path,
) -> None:
    need("watchfiles")
    with (
        uvicorn(
            tmp_path, "--reload", "--reload-dir", str(tmp_path), lame_duck=30, grace=0.5
        ) as server,
    ):
        server.wait_for_workers(1)
        with Client(server.port) as stream:
            stream.request("/stream?n=100000")
            server.wait_for('"GET /stream')
            change(server, tmp_path / "changed.py", "# saved\n")
            assert is_cut(stream)
        server.wait_for("Application startup complete", count=2)
        assert get(server.port, "/").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait(8) in (0, -signal.SIGTERM)  # the parent is uvicorn's own
        assert server.count("lifespan shutdown") == 2


def test_a_server_without_lifespan_is_hooked_at_its_first_request(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with uvicorn(tmp_path, "--lifespan", "off", lame_duck=ENOUGH, grace=5) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.wait_for("hooked uvicorn")
        server.terminate()
        assert get(server.port, "/").closes
        assert slow.result().status == 200
        assert server.wait() == 0
        assert "lifespan" not in server.log.replace("lifespan.shutdown runs", "")


def test_limit_max_requests_drains_and_exits_0(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    with uvicorn(tmp_path, "--limit-max-requests", "2", lame_duck=ENOUGH, grace=10) as server:
        slow = beside.submit(get, server.port, "/slow?s=2&name=old")
        server.wait_for("slow began old")
        for _ in range(2):
            assert get(server.port, "/").status == 200
        server.wait_for(r"\]: lame duck \(limit_max_requests\)")
        assert get(server.port, "/").closes
        assert slow.result().status == 200
        assert server.wait(8) == 0
        assert server.count("lifespan shutdown") == 1
        assert server.count("Maximum request limit") == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_should_exit_set_by_code_drains(
    tmp_path: Path, loop: str, beside: ThreadPoolExecutor
) -> None:
    with uvicorn(tmp_path, loop=loop, lame_duck=ENOUGH, grace=10) as server:
        slow = beside.submit(get, server.port, "/slow?s=1.5&name=old")
        server.wait_for("slow began old")
        get(server.port, "/should_exit")
        server.wait_for(r"\]: lame duck \(should_exit\)")
        assert get(server.port, "/").closes
        assert slow.result().status == 200
        assert server.wait(8) == 0


def test_trace_logging_does_not_hide_the_server(tmp_path: Path) -> None:
    """It wraps the app and `receive`; what stands on the frames stays."""
    with uvicorn(tmp_path, "--log-level", "trace", lame_duck=0.2) as server:
        assert get(server.port, "/").status == 200
        server.terminate()
        assert server.wait() == 0


# -- in a program


@pytest.mark.parametrize("name", ["serve", "subclass"])
def test_a_program_that_serves_drains_and_ends_in_order(
    tmp_path: Path, name: str, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, name, lame_duck=ENOUGH, grace=5) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.terminate()
        assert get(server.port, "/").closes
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") == 1
        assert server.count("subclass got 15") == (name == "subclass")


@pytest.mark.parametrize("name", ["no_signals", "displaced"])
def test_a_program_whose_own_handler_sets_should_exit_drains(
    tmp_path: Path, name: str, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, name, lame_duck=ENOUGH, grace=5) as server:
        if name == "displaced":
            server.wait_for("handler displaced")
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGTERM)
        server.wait_for(r"\]: lame duck \(should_exit\)")
        assert get(server.port, "/").closes
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("program goes on") == 1


@pytest.mark.parametrize(
    ("path", "fate"),
    [("/slow?name=old", "has ended"), ("/swallow", "goes on"), ("/block?until=go-on", "goes on")],
)
def test_a_program_outlives_the_server_in_its_thread(tmp_path: Path, path: str, fate: str) -> None:
    """The hard deadline is the process's, and the process is not the server's."""
    with (
        program(tmp_path, "thread", lame_duck=1.2, grace=0.2, cancel=0.3, cleanup=0.5) as server,
        Client(server.port) as client,
    ):
        client.request(path)
        if "block" not in path:
            server.wait_for("slow began old" if "slow" in path else "swallow began")
        server.signal(signal.SIGUSR1)
        if "block" in path:
            server.wait_for(r"\]: lame duck \(should_exit\)")
            (tmp_path / "go-on").touch()
            assert is_cut(client)
        else:  # also where the app swallows its cancellation
            assert client.response().status == 503
        assert server.wait(12) == 7
        assert f"server thread {fate}" in server.log
        assert "program goes on" in server.log
        assert server.hard_deadline < 3
        assert "hard deadline" not in server.log


def test_a_program_with_a_handler_of_its_own_still_gets_its_signal_and_lives_on(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, "own_handler", lame_duck=0.3, cancel=0.2, cleanup=0.5) as server:
        slow = beside.submit(get, server.port, "/slow?s=0.5&name=old")
        server.wait_for("slow began old")
        server.terminate()
        assert slow.result().status == 200
        assert server.wait(12) == 7
        assert "own handler got [15]" in server.log
        assert server.hard_deadline < 3
        assert "program goes on" in server.log


@pytest.mark.parametrize("name", ["two", "same_app"])
def test_two_servers_in_one_loop_drain_each_for_itself(
    tmp_path: Path, name: str, beside: ThreadPoolExecutor
) -> None:
    first, second = free_port(), free_port()
    with program(tmp_path, name, first, second, lame_duck=ENOUGH, grace=5) as server:
        old = beside.submit(get, second, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGUSR1)
        server.wait_for(r"\]: lame duck \(should_exit\)")
        assert get(second, "/").closes
        assert get(second, "/readyz").status == 503
        assert not get(first, "/").closes
        assert get(first, "/readyz").status == 200
        assert old.result().status == 200
        server.wait_for(r"\]: stopped \(should_exit\)")
        wait_until(lambda: is_refused(second), "the second is closed")
        assert not get(first, "/").closes
        other = beside.submit(get, first, "/slow?s=1&name=other")
        server.wait_for("slow began other")
        server.terminate()
        assert get(first, "/").closes
        assert other.result().status == 200
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 2


def test_one_sigterm_drains_both_servers_of_one_loop(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    """uvicorn passes the signal on from the one started last to the one before."""
    first, second = free_port(), free_port()
    with program(tmp_path, "two", first, second, lame_duck=0.3, grace=5) as server:
        slow = [beside.submit(get, port, "/slow?s=1.5&name=old") for port in (first, second)]
        server.wait_for("slow began old", count=2)
        server.signal(signal.SIGTERM)
        assert [answer.result().status for answer in slow] == [200, 200]
        assert server.wait(10) == 0
        assert server.count("lifespan shutdown") == 2


@pytest.mark.parametrize(
    ("path", "number", "code"),
    [
        ("/slow?s=1&name=old", signal.SIGTERM, 0),
        ("/slow?s=1&name=old", signal.SIGINT, 0),
        ("/slow?s=60&name=old", signal.SIGTERM, 1),
        ("/block", signal.SIGTERM, 1),
    ],
)
def test_a_uvicorn_before_0_29_has_the_exit_code_and_the_hard_deadline_too(
    tmp_path: Path, path: str, number: signal.Signals, code: int
) -> None:
    with program(tmp_path, "old", lame_duck=0.2, grace=2) as server, Client(server.port) as client:
        server.wait_for("that needs uvicorn 0.29")
        client.request(path)
        server.wait_for("began")
        server.signal(number)
        assert server.wait() == code
        assert ("program goes on" in server.log) == (code == 0)
        assert ("hard deadline" in server.log) == (path == "/block")
        skipped = "lame duck (SIGINT): skipped" in server.log
        assert skipped == (number == signal.SIGINT)


def test_a_second_server_after_the_first_begins_afresh(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, "second", lame_duck=ENOUGH, grace=5) as server:
        assert get(server.port, "/").status == 200
        server.signal(signal.SIGUSR1)
        server.wait_for("the first has ended")
        server.wait_for("Uvicorn running", count=2)
        answer = get(server.port, "/")
        assert answer.status == 200
        assert not answer.closes
        assert get(server.port, "/readyz").status == 200
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.terminate()
        assert get(server.port, "/").closes
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 2


def test_shutdown_called_directly_and_more_than_once_drains_once(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, "shutdown", lame_duck=0.3, grace=5) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGUSR1)
        assert slow.result().status == 200
        assert server.wait(12) == 0
        assert server.count("lifespan shutdown") == 1
        assert server.count("clean after") == 1
        for line in ("shutdown returned", "serve returned", "program goes on"):
            assert server.count(line) == 1


@pytest.mark.parametrize("path", ["/shutdown", "/behind/shutdown"])
def test_a_request_that_calls_shutdown_is_not_waited_for_by_itself(
    tmp_path: Path, path: str, beside: ThreadPoolExecutor
) -> None:
    """On plain uvicorn it would wait for ever: the drain for the request, and the other way."""
    with program(tmp_path, "shutdown_in_a_request", lame_duck=0.2, grace=3, cancel=0.5) as server:
        slow = beside.submit(get, server.port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        answer = get(server.port, path)
        assert answer.body == b"shut down" if path == "/shutdown" else answer.status == 503
        assert slow.result().status == 200
        assert server.wait() == 0
        assert ("clean after" in server.log) == (path == "/shutdown")
        assert "hard deadline" not in server.log
        assert "Traceback" not in server.log


def test_a_cancelled_serve_drains_without_a_lame_duck_and_stays_cancelled(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    """uvicorn itself leaves the listener open and the lifespan without its shutdown."""
    with program(tmp_path, "cancel", lame_duck=30, grace=2, cancel=0.2, cleanup=0.2) as server:
        slow = beside.submit(get, server.port, "/slow?s=0.5&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGUSR1)
        assert slow.result().status == 200
        server.wait_for("serve was cancelled")
        assert is_refused(server.port)
        assert server.wait(12) == 0
        assert server.count("lifespan shutdown") == 1
        assert "program goes on" in server.log


# -- with others


@pytest.mark.parametrize("loop", LOOPS)
def test_an_event_stream_of_sse_starlette_is_closed_in_the_lame_duck(
    tmp_path: Path, loop: str
) -> None:
    """By us, as any that an EventSource has asked for. Its own drain is turned off."""
    need("sse_starlette")
    with (
        uvicorn(tmp_path, loop=loop, lame_duck=0.3, grace=30) as server,
        Client(server.port) as client,
    ):
        client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        assert client.head()[0] == 200
        server.terminate()
        assert server.wait(8) == 0


def test_a_child_that_the_app_has_forked_ends_by_sigterm_and_drains_nothing(
    tmp_path: Path,
) -> None:
    """It has inherited the handler, and a copy of a server that it does not run."""
    with uvicorn(tmp_path) as server:
        child = int(get(server.port, "/fork").body)
        server.wait_for("child runs")

        def has_ended() -> bool:
            try:
                state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                return True
            return state == "Z"

        assert not has_ended()
        os.kill(child, signal.SIGTERM)
        wait_until(has_ended, "the child has ended")
        assert f"drain [{child}]" not in server.log
        assert not get(server.port, "/").closes
        server.terminate()
        assert server.wait() == 0


def test_another_server_is_left_to_stop_in_its_own_way(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    need("hypercorn")
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "-b", f"127.0.0.1:{port}"]
    with Server(
        [*command, "--graceful-timeout", "5", "e2e.app:app"],
        tmp_path,
        port=port,
        ready="Running on",
        periods={"grace": 5},
    ) as server:
        slow = beside.submit(get, port, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        assert get(port, "/readyz").status == 200
        server.signal(signal.SIGTERM)
        assert slow.result().status == 200
        assert server.wait() == 0
        assert "drain [" not in server.log, "it is no warning that a server is not known"
        assert server.count("lifespan shutdown") == 1
        assert server.count("atexit") >= 1
        assert "Traceback" not in server.log
