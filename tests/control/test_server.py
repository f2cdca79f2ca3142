"""The control socket's server: it answers with the loop blocked, and nothing said to it ends it."""

from __future__ import annotations

import json
import os
import random
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.polling import eventually

from graceful_asgi import DrainPolicy, Phase
from graceful_asgi._control import connection, handler, server
from graceful_asgi._control.protocol import MAX_REQUEST
from graceful_asgi._core.drain import Step
from graceful_asgi._core.work import TrackedWork
from graceful_asgi._diagnostics.stacks import stack_of

from .sockets import DRAIN, QUICK, RESUME, STATUS, WAIT, control, read_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_status_tells_how_the_process_stands(tmp_path: Path) -> None:
    with control(tmp_path / "c") as opened, opened.drainer.track("export"):
        [reply] = opened.say(STATUS)
        assert (reply["v"], reply["reply"]) == (1, "status")
        process = reply["process"]
        assert process["pid"] == os.getpid()
        assert (process["phase"], process["in_flight"]) == ("serving", 1)
        assert process["oldest"]["path"] == "export"
        assert process["time_left"] is None
        opened.drainer.begin("test")
        process = opened.say(STATUS)[0]["process"]
        assert (process["phase"], process["reason"]) == ("lame duck", "test")
        assert 60 < process["gives_up_in"] <= 120
        opened.drainer.stop("SIGTERM")
        process = opened.say(STATUS)[0]["process"]
        assert process["stopping"]
        assert 60 < process["time_left"] <= 120


async def test_drain_begins_and_resume_calls_it_off(tmp_path: Path) -> None:
    with control(tmp_path / "c") as opened:
        [reply] = opened.say(DRAIN)
        assert reply["began"]
        assert opened.drainer.statistics().reason == "test"
        assert opened.drainer.phase is Phase.LAME_DUCK
        [again] = opened.say(DRAIN)
        assert not again["began"]
        [resumed] = opened.say(RESUME)
        assert resumed["resumed"]
        assert resumed["process"]["phase"] == "serving"
        assert not opened.say(RESUME)[0]["resumed"]


async def test_a_stop_is_not_called_off(tmp_path: Path) -> None:
    with control(tmp_path / "c") as opened:
        opened.drainer.stop("SIGTERM")
        [reply] = opened.say(RESUME)
        assert not reply["resumed"]
        assert reply["process"]["phase"] == "lame duck"


async def test_a_waiting_peer_gets_the_outcome_with_the_loop_blocked(tmp_path: Path) -> None:
    with control(tmp_path / "c", QUICK) as opened:
        replies = opened.say(WAIT)  # which blocks it
    assert replies[0]["reply"] == "drain"
    assert replies[-1]["outcome"] == "clean"
    assert replies[-1]["process"]["drained"]


async def test_a_waiting_peer_gets_the_progress_and_the_work_that_ends(tmp_path: Path) -> None:
    with control(tmp_path / "c", QUICK) as opened:
        work = TrackedWork(opened.drainer.in_flight, "export")
        work.__enter__()
        with opened.connect() as peer, peer.makefile() as lines:
            peer.sendall(WAIT)
            said = [json.loads(lines.readline()) for _ in range(3)]
            assert [each["reply"] for each in said] == ["drain", "progress", "progress"]
            assert [each["process"]["in_flight"] for each in said] == [1, 1, 1]
            work.__exit__(None, None, None)
            rest = [json.loads(line) for line in lines]
            assert rest[-1]["outcome"] == "clean"


async def test_work_that_outlasts_the_grace_period_is_forced_and_nothing_is_cancelled(
    tmp_path: Path,
) -> None:
    policy = DrainPolicy(lame_duck_period=0.05, grace_period=0.05)
    with control(tmp_path / "c", policy) as opened, opened.drainer.track("export"):
        assert opened.say(WAIT)[-1]["outcome"] == "forced"
        assert opened.drainer.phase is Phase.LAME_DUCK
        assert len(opened.drainer.in_flight) == 1


async def test_a_waiting_peer_learns_at_once_that_the_drain_was_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graceful_asgi._control.handler.PROGRESS_PERIOD", 600)
    with (
        control(tmp_path / "c") as opened,
        opened.connect() as peer,
        peer.makefile() as lines,
    ):
        peer.sendall(WAIT)
        lines.readline()
        opened.drainer.resume()
        assert [json.loads(line) for line in lines][-1]["outcome"] == "resumed"


@pytest.mark.parametrize("outcome", ["clean", "forced"])
async def test_a_waiting_peer_gets_the_outcome_before_the_server_has_gone(
    tmp_path: Path, outcome: str
) -> None:
    with (
        control(tmp_path / "c") as opened,
        opened.connect() as peer,
        peer.makefile() as lines,
    ):
        peer.sendall(WAIT)
        lines.readline()
        opened.say(STATUS)  # by now the server is done with the first of them
        if outcome == "forced":
            TrackedWork(opened.drainer.in_flight, "export").__enter__()
            opened.drainer.abort()
            opened.drainer.record.of(opened.drainer.state).aborted += 1
        opened.drainer._add(Step.CLOSE)
        opened.drainer._add(Step.CLEAN_UP)
        opened.socket.closed()
        assert [json.loads(line) for line in lines][-1]["outcome"] == outcome


async def test_a_drain_that_no_stop_follows_undoes_itself(tmp_path: Path) -> None:
    with control(tmp_path / "c") as opened:
        drain = b'{"v": 1, "command": "drain", "resume_after": %s}\n'
        left = opened.say(drain % b"600")[0]["process"]["undone_in"]
        assert 500 < left <= 600
        opened.say(RESUME)
        assert opened.say(drain % b"0.2")[0]["began"]
        await eventually(lambda: opened.drainer.phase is Phase.SERVING)


# What it withstands


def malformed(number: int) -> bytes:
    """One of many lines that are no request."""
    random_ = random.Random(number)
    kind = number % 6
    if kind == 0:
        return random_.randbytes(random_.randrange(1, 300)) + b"\n"
    if kind == 1:
        return STATUS[: random_.randrange(1, len(STATUS) - 3)] + b"\n"
    if kind == 2:
        return b"{" * random_.randrange(1, MAX_REQUEST) + b"\n"
    if kind == 3:
        return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    if kind == 4:
        return b"x" * random_.randrange(MAX_REQUEST + 1, 40 * MAX_REQUEST)
    return json.dumps({"v": 1, "command": "drain", f"x{number}": number}).encode() + b"\n"


async def test_a_thousand_malformed_lines_get_an_error_each_and_change_nothing(
    tmp_path: Path,
) -> None:
    with control(tmp_path / "c") as opened:
        for number in range(1000):
            replies = opened.say(malformed(number))
            assert [each["reply"] for each in replies] == ["error"], malformed(number)[:100]
        assert opened.drainer.phase is Phase.SERVING
        await eventually(lambda: serving_threads() == 1)  # that of an earlier test may end late
        assert opened.say(STATUS)[0]["reply"] == "status"


async def test_clients_that_say_nothing_do_not_use_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_PERIOD", 600)
    with control(tmp_path / "c") as opened:
        idle = [opened.connect() for _ in range(server.MAX_CONNECTIONS + 8)]
        assert opened.say(STATUS)[0]["reply"] == "status"
        assert read_all(idle[0]) == []  # who has been idle for longest makes room
        for peer in idle:
            peer.close()


async def test_any_number_that_waits_for_a_drain_leaves_room_for_a_resume(tmp_path: Path) -> None:
    with control(tmp_path / "c") as opened:
        waiting = [opened.connect() for _ in range(handler.MAX_WAITING)]
        for peer in waiting:
            peer.sendall(WAIT)
            peer.recv(1, socket.MSG_PEEK)
        [refused] = opened.say(WAIT)
        assert refused["error"] == f"{handler.MAX_WAITING} clients wait for a drain already"
        silent = [opened.connect() for _ in range(server.MAX_CONNECTIONS)]
        assert opened.say(STATUS)[0]["process"]["phase"] == "lame duck"
        assert opened.say(RESUME)[0]["resumed"]
        for peer in waiting:
            assert read_all(peer)[-1]["outcome"] == "resumed"
        assert opened.say(DRAIN)[0]["began"]
        for peer in (*waiting, *silent):
            peer.close()


async def test_a_client_that_says_nothing_for_long_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_PERIOD", 0.05)
    with control(tmp_path / "c") as opened, opened.connect() as peer:
        peer.sendall(b'{"v": 1')
        assert read_all(peer) == []


async def test_a_client_that_reads_nothing_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graceful_asgi._control.handler.PROGRESS_PERIOD", 0.0001)
    monkeypatch.setattr(connection, "IDLE_PERIOD", 0.3)
    with control(tmp_path / "c") as opened, opened.connect() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        peer.sendall(WAIT)
        assert opened.say(STATUS)[0]["reply"] == "status"
        await eventually(lambda: has_been_closed(peer))
        assert opened.say(STATUS)[0]["reply"] == "status"


def has_been_closed(peer: socket.socket) -> bool:
    """Return True once the other end is closed, whatever *peer* has left unread."""
    poll = select.poll()
    poll.register(peer, 0)  # a hang-up is always reported
    return any(events & select.POLLHUP for _, events in poll.poll(0))


async def test_a_request_in_pieces_and_one_without_a_line_end_are_understood(
    tmp_path: Path,
) -> None:
    with control(tmp_path / "c") as opened, opened.connect() as peer:
        for at in range(0, len(STATUS) - 1, 5):
            peer.sendall(STATUS[:-1][at : at + 5])
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer)[0]["reply"] == "status"


async def test_another_user_is_refused_by_the_kernels_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own word is in the end-to-end tests; here is what comes of it."""
    with control(tmp_path / "c") as opened:
        with opened.connect() as peer:
            assert connection.peer_uid(peer) == os.geteuid()
        for uid, trusted in ((0, True), (os.geteuid(), True), (None, True), (12345, False)):
            monkeypatch.setattr(connection, "peer_uid", lambda _, uid=uid: uid)
            [reply] = opened.say(DRAIN)
            assert (reply["reply"] == "drain") is trusted
            assert (opened.drainer.phase is Phase.LAME_DUCK) is trusted
            opened.drainer.resume()


async def test_an_error_of_ours_costs_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with control(tmp_path / "c") as opened:
        with monkeypatch.context() as patch:
            patch.setattr(opened.drainer, "statistics", lambda: 1 / 0)
            [reply] = opened.say(STATUS)
        assert "the server's log says why" in reply["error"]
        assert "ZeroDivisionError" in caplog.text
        assert opened.say(STATUS)[0]["reply"] == "status"


async def test_an_error_in_a_step_costs_the_connections_of_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with control(tmp_path / "c") as opened:
        with monkeypatch.context() as patch:
            patch.setattr(server, "is_trusted", lambda _: 1 / 0)
            with opened.connect() as peer:
                assert read_all(peer) == []
        assert opened.say(STATUS)[0]["reply"] == "status"
        assert "ZeroDivisionError" in caplog.text


async def test_without_a_descriptor_left_it_looks_away_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "ACCEPT_PAUSE", 0.1)
    with control(tmp_path / "c") as opened:
        listener: Any = opened.socket._server._listener
        failures = [OSError(24, "Too many open files")]

        class Failing:
            def accept(self) -> Any:
                if failures:
                    raise failures.pop()
                return listener.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(listener, name)

        monkeypatch.setattr(opened.socket._server, "_listener", Failing())
        asked = time.monotonic()
        assert opened.say(STATUS)[0]["reply"] == "status"
        assert time.monotonic() - asked >= 0.1
        assert caplog.text.count("Too many open files") == 1


# The fork is what is tested. (From Python 3.12 on it warns.)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_of_a_fork_has_nothing_of_it(tmp_path: Path) -> None:
    """Else the socket would seem to live on in it when its process is long gone."""
    with control(tmp_path / "c") as opened:
        await eventually(lambda: listeners() == 1)  # that of an earlier test may be closed late

        def look_and_close() -> int:
            count = listeners()
            opened.socket.closed()
            return count

        assert in_a_child(look_and_close) == 0
        await anyio.lowlevel.checkpoint()  # some interpreters have the thread back only then
        assert opened.say(STATUS)[0]["reply"] == "status"


def listeners() -> int:
    """Return how many descriptors of this process are listening UNIX sockets."""
    return sum(map(_is_listening, map(int, os.listdir("/proc/self/fd"))))


def _is_listening(number: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as found:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return bool(listens) and found.family == socket.AF_UNIX
    except OSError:  # it is none, or it was the listing's own
        return False


def in_a_child(act: Callable[[], int]) -> int:
    """Return what *act* returns in a child of this process."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = act()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serving_threads() -> int:
    stacks = [stack_of(frame) for frame in sys._current_frames().values()]
    return sum(
        any(frame.f_code.co_filename == server.__file__ for frame in stack) for stack in stacks
    )


async def test_it_can_be_closed_twice_and_leaves_no_thread(tmp_path: Path) -> None:
    with control(tmp_path / "c") as opened:
        await eventually(lambda: serving_threads() == 1)
        opened.socket.closed()
        opened.socket.closed()
        await eventually(lambda: os.listdir(tmp_path / "c") == [])
    await eventually(lambda: serving_threads() == 0)


async def test_wakes_by_the_thousand_from_many_threads_lose_nothing(tmp_path: Path) -> None:
    with control(tmp_path / "c", QUICK) as opened:

        def begin_and_resume() -> None:
            for _ in range(200):
                opened.drainer.begin("test")
                opened.drainer.resume()

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(anyio.to_thread.run_sync, begin_and_resume)
        assert opened.say(WAIT)[-1]["outcome"] == "clean"
