"""Several servers in one process are one service: one signal, one deadline, one exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get, is_refused
from support.polling import wait_until
from support.ports import free_port
from support.server import ENOUGH, ROOM, Server

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

WAYS = ["one_loop", "one_in_a_thread"]
ONE_AT_FIRST = ["started_later", "after_the_end", "given_up_in_its_startup"]


def program(directory: Path, name: str, *, servers: int = 2, **periods: float) -> Server:
    ports = [free_port() for _ in range(servers)]
    command = [sys.executable, "-m", "e2e.several_servers", name, *map(str, ports)]
    started = 1 if name in ONE_AT_FIRST else servers
    ready = r"(?s)" + ".*".join(["Uvicorn running on"] * started)
    given = {"lame_duck": 0.3, "grace": 5, **periods}
    return Server(command, directory, port=ports[0], ready=ready, periods=given)


def second_port(server: Server) -> int:
    return int(server.command[-1])


@pytest.mark.parametrize("name", WAYS)
def test_a_signal_stops_all_at_once(tmp_path: Path, name: str, beside: ThreadPoolExecutor) -> None:
    """uvicorn alone would tell one of them, and the other when that one is done."""
    with program(tmp_path, name, lame_duck=ENOUGH) as server:
        ports = server.port, second_port(server)
        slow = [beside.submit(get, port, "/slow?s=1.5&name=old") for port in ports]
        server.wait_for("slow began old", count=2)
        server.signal(signal.SIGTERM)
        server.wait_for(r"lame duck \(SIGTERM\)", count=2)
        assert [get(port, "/readyz").status for port in ports] == [503, 503]
        assert [answer.result().status for answer in slow] == [200, 200]
        assert server.wait() == 0
        assert server.seconds_since_signal() < ENOUGH + ROOM
        assert server.count("lifespan shutdown") == 2
        assert server.count("clean after") == 2
        assert "program goes on" in server.log
        assert "goes to" not in server.log
        assert "has been replaced" not in server.log
        assert "Traceback" not in server.log


def test_servers_of_one_app_without_a_lifespan_stop_at_once(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, "of_one_app", lame_duck=ENOUGH) as server:
        ports = server.port, second_port(server)
        slow = [beside.submit(get, port, "/slow?until=go-on&name=old") for port in ports]
        server.wait_for("slow began old", count=2)
        server.wait_for("hooked", count=2)
        server.signal(signal.SIGTERM)
        server.wait_for(r"lame duck \(SIGTERM\).*; 1 in flight", count=2)
        assert [get(port, "/readyz").status for port in ports] == [503, 503]
        (tmp_path / "go-on").touch()
        assert [answer.result().status for answer in slow] == [200, 200]
        assert server.wait() == 0
        assert server.seconds_since_signal() < ENOUGH + ROOM
        assert server.count("clean after") == 2
        assert "program goes on" in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("later", [0, 1])
def test_work_of_any_server_of_one_app_without_a_lifespan_ends_by_the_one_deadline(
    tmp_path: Path, later: int, beside: ThreadPoolExecutor
) -> None:
    """A server that is not found would wait for its work for ever, as uvicorn does."""
    with program(tmp_path, "of_one_app", lame_duck=0.1, grace=0.5) as server:
        ports = [server.port, second_port(server)]
        assert get(ports[not later], "/").status == 200
        hangs = beside.submit(get, ports[later], "/slow?s=60&name=old")
        server.wait_for("slow began old")
        server.wait_for("hooked", count=2)
        server.signal(signal.SIGTERM)
        assert hangs.result().status == 503
        assert server.wait() == 1
        assert server.seconds_since_signal() < server.hard_deadline + ROOM
        server.wait_for("1 cancelled")


@pytest.mark.parametrize("name", WAYS)
def test_one_that_is_done_waits_for_the_other(
    tmp_path: Path, name: str, beside: ThreadPoolExecutor
) -> None:
    """The end of the main thread would cut what a daemon thread's server has in flight."""
    with program(tmp_path, name, lame_duck=0.1) as server:
        slow = beside.submit(get, server.port, "/slow?s=1.5&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGTERM)
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("clean after") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_one_that_the_lifespan_of_another_waits_for_does_not_wait_for_that(
    tmp_path: Path, number: signal.Signals
) -> None:
    with program(tmp_path, "in_a_lifespan", lame_duck=0.1, cleanup=10) as server:
        server.signal(number)
        assert server.wait() == 0
        assert server.seconds_since_signal() < 8, "far from the end of the cleanup period"
        assert server.count("clean after") == 2
        assert server.count("the second is over") == 1
        assert "program goes on" in server.log


def test_the_last_lines_of_a_server_in_a_forked_child_are_written(tmp_path: Path) -> None:
    """multiprocessing ends such a child by `os._exit`: no atexit function runs."""
    with program(tmp_path, "in_a_fork", servers=1, lame_duck=0.1) as server:
        server.wait_for("SIGTERM is passed on")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.count("clean after") == 1
        assert "the child has ended with 0" in server.log


@pytest.mark.parametrize(("name", "busy"), [("one_loop", 1), ("one_in_a_thread", 0)])
def test_what_is_cut_in_one_of_them_is_in_the_exit_code(
    tmp_path: Path, name: str, busy: int
) -> None:
    with program(tmp_path, name, lame_duck=0.2, grace=0.3) as server:
        port = (server.port, second_port(server))[busy]
        with Client(port) as client:
            client.request("/slow?name=cut")
            server.wait_for("slow began cut")
            server.signal(signal.SIGTERM)
            assert client.response().status == 503
        assert server.wait() == 1
        assert "program goes on" not in server.log
        assert server.count("lifespan shutdown") == 2
        assert "hard deadline" not in server.log
        assert "Traceback" not in server.log
        assert "never retrieved" not in server.log


def test_what_is_cut_in_one_is_in_the_exit_code_if_another_is_given_up_in_its_startup(
    tmp_path: Path,
) -> None:
    with program(
        tmp_path, "given_up_in_its_startup", lame_duck=0.2, grace=0.3, cleanup=20
    ) as server:
        server.wait_for("the second hangs")
        with Client(server.port) as client:
            client.request("/slow?name=cut")
            server.wait_for("slow began cut")
            server.signal(signal.SIGTERM)
            assert client.response().status == 503
        assert server.wait(15) == 1
        assert "program goes on" not in server.log
        assert "hard deadline" not in server.log


@pytest.mark.parametrize("name", WAYS)
def test_one_hard_deadline_holds_for_all(tmp_path: Path, name: str) -> None:
    with program(tmp_path, name, lame_duck=0.2, grace=0.3) as server:
        with Client(server.port) as client:
            client.request("/block")
            server.wait_for("block began")
            server.signal(signal.SIGTERM)
            assert server.wait() == 1
        assert "hard deadline" in server.log


@pytest.mark.parametrize("name", WAYS)
def test_ctrl_c_again_cancels_in_all(tmp_path: Path, name: str) -> None:
    with (
        program(tmp_path, name, lame_duck=30, grace=30) as server,
        Client(server.port) as one,
        Client(second_port(server)) as other,
    ):
        one.request("/slow?name=old")
        other.request("/slow?name=old")
        server.wait_for("slow began old", count=2)
        server.signal(signal.SIGINT)
        server.wait_for(r"\]: draining \(", count=2)
        server.signal(signal.SIGINT)
        assert [one.response().status, other.response().status] == [503, 503]
        assert server.wait(8) == 1


# In "one_in_a_thread" the second ends with the first: its thread is a daemon.
@pytest.mark.parametrize(
    ("name", "stopped"), [("one_loop", 0), ("one_loop", 1), ("one_in_a_thread", 0)]
)
def test_a_server_that_code_stops_leaves_the_other_one_its_signals(
    tmp_path: Path, name: str, stopped: int, beside: ThreadPoolExecutor
) -> None:
    """The first to start puts back the handlers that it found, and takes them from the second."""
    with program(tmp_path, name) as server:
        ports = [server.port, second_port(server)]
        os.kill(server.pid, (signal.SIGUSR1, signal.SIGUSR2)[stopped])
        server.wait_for(r"stopped \(should_exit\)")
        wait_until(lambda: is_refused(ports[stopped]), "it is closed")
        left = ports[1 - stopped]
        assert not get(left, "/").closes
        slow = beside.submit(get, left, "/slow?s=1&name=old")
        server.wait_for("slow began old")
        server.terminate()
        server.signal(signal.SIGTERM)  # again, as gunicorn has it
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("clean after") == 2


def test_a_server_that_starts_after_the_signal_is_stopped_as_well(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, "started_later", lame_duck=0.2) as server:
        slow = beside.submit(get, server.port, "/slow?until=go-on&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGTERM)
        server.wait_for("starts another")
        server.wait_for("lifespan startup", count=2)
        (tmp_path / "go-on").touch()
        assert slow.result().status == 200
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 2
        assert "program goes on" in server.log


def test_the_deadline_of_an_end_stays_if_a_server_in_a_thread_starts_and_ends_then(
    tmp_path: Path,
) -> None:
    """SIGTERM has killed such a program on plain uvicorn long before."""
    with program(tmp_path, "after_the_end", lame_duck=0.1, cleanup=4) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert server.count("clean after") == 2
        assert "program hangs" in server.log
        assert "hard deadline" in server.log


def test_a_server_in_a_thread_that_sigterm_would_cut_is_warned_about(tmp_path: Path) -> None:
    with program(tmp_path, "plain_thread", servers=1) as server:
        server.wait_for("this server runs in a thread, and nobody handles SIGTERM")
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("name", ["handled_thread", "waited_for_thread"])
def test_a_server_in_a_thread_of_a_program_that_handles_sigterm_is_not(
    tmp_path: Path, name: str, beside: ThreadPoolExecutor
) -> None:
    with program(tmp_path, name, servers=1) as server:
        slow = beside.submit(get, server.port, "/slow?s=1.5&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGTERM)
        assert slow.result().status == 200
        assert server.wait() == 0
        assert "program goes on" in server.log
        assert "WARNING" not in server.log
