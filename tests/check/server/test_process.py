"""A server process is started for certain, timed exactly, and gone afterwards whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.command import SERVER
from support.polling import PATIENCE, eventually
from support.ports import free_port

from graceful_asgi._check.errors import ServerExitedError, ServerStartError
from graceful_asgi._check.server.port import answers
from graceful_asgi._check.server.process import TargetProcess
from graceful_asgi.errors import MisuseError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def server(
    directory: Path, behaviour: str, *more: str, start_period: float = 20.0
) -> TargetProcess:
    port = free_port()
    return TargetProcess(
        [*SERVER, behaviour, str(port), *more],
        port=port,
        log_path=directory / "server.log",
        start_period=start_period,
    )


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_started_server_answers_and_is_gone_after_the_block(tmp_path: Path) -> None:
    with server(tmp_path, "serves") as process:
        assert process.running
        assert answers("127.0.0.1", process.port, "/", within=PATIENCE)
    assert not process.running
    assert is_gone(process.pid)


def test_a_command_that_exits_early_is_named_with_its_code_and_its_log(tmp_path: Path) -> None:
    process = server(tmp_path, "exits early")
    with pytest.raises(ServerStartError, match=r"(?s)exited early, code 3.*behaviour: exits early"):
        process.start()
    assert is_gone(process.pid)


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    process = TargetProcess(
        [str(tmp_path / "no-such-command")], port=free_port(), log_path=tmp_path / "log"
    )
    with pytest.raises(ServerStartError, match="no-such-command could not be started"):
        process.start()


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [("never opens", "did not open"), ("accepts and is silent", "did not answer GET / on")],
)
def test_a_server_that_never_answers_is_named_with_its_log_and_killed(
    tmp_path: Path, behaviour: str, said: str
) -> None:
    process = server(tmp_path, behaviour, start_period=4.0)  # for its log, and its port
    with pytest.raises(ServerStartError, match=rf"(?s){said} .*behaviour: {behaviour}"):
        process.start()
    assert process.exit_code == -signal.SIGKILL
    assert is_gone(process.pid)


def test_the_exit_code_and_the_seconds_to_exit_are_reported(tmp_path: Path) -> None:
    with server(tmp_path, "exits 7") as process:
        assert process.exit_code is None
        assert process.seconds_to_exit is None
        before = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 7
        assert process.seconds_to_exit is not None
        assert 0 < process.seconds_to_exit <= time.monotonic() - before
    assert process.exit_code == 7


def test_the_seconds_to_exit_do_not_grow_after_the_exit(tmp_path: Path) -> None:
    """Nobody needs to be waiting for the exit when it happens."""
    with server(tmp_path, "exits 7") as process:
        process.signal(signal.SIGTERM)
        process.wait(PATIENCE)
        first = process.seconds_to_exit
        process.wait(PATIENCE)
        assert process.seconds_to_exit == first


def test_the_end_by_a_signal_is_a_negative_exit_code(tmp_path: Path) -> None:
    with server(tmp_path, "serves") as process:
        process.signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM


def test_a_server_that_ignores_sigterm_is_killed_in_the_end(tmp_path: Path) -> None:
    with server(tmp_path, "ignores SIGTERM") as process:
        process.signal(signal.SIGTERM)
        assert process.wait(0.2) is None
        assert process.running
    assert process.exit_code == -signal.SIGKILL
    assert is_gone(process.pid)


def test_the_seconds_to_exit_count_from_the_first_signal(tmp_path: Path) -> None:
    with server(tmp_path, "ignores SIGTERM") as process:
        process.signal(signal.SIGTERM)
        process.wait(0.3)
        process.signal(signal.SIGKILL)
        process.wait(PATIENCE)
        assert process.seconds_to_exit is not None
        assert process.seconds_to_exit >= 0.3


async def test_what_the_server_started_is_gone_with_it(tmp_path: Path) -> None:
    """A worker that ignores SIGTERM and outlives its parent is killed all the same."""
    child_port = free_port()

    def child_answers() -> bool:
        return answers("127.0.0.1", child_port, "/", within=5.0)

    async with server(tmp_path, "has a child", str(child_port)) as process:
        await eventually(child_answers)
        process.signal(signal.SIGTERM)
        await process.wait_exit()
        assert child_answers()
    await eventually(lambda: not child_answers())


def test_a_signal_to_a_server_that_went_before_is_an_error_with_its_log(tmp_path: Path) -> None:
    with server(tmp_path, "serves") as process:
        assert answers("127.0.0.1", process.port, "/exit", within=PATIENCE)
        assert process.wait(PATIENCE) == 9
        with pytest.raises(ServerExitedError, match=r"(?s)exited with code 9.*behaviour: serves"):
            process.signal(signal.SIGTERM)


async def test_waiting_for_the_exit_does_not_block_the_event_loop(tmp_path: Path) -> None:
    """The signal is sent by another task while this one waits."""
    async with server(tmp_path, "exits 7") as process, anyio.create_task_group() as group:
        with anyio.fail_after(PATIENCE):
            group.start_soon(_signal_soon, process)
            await process.wait_exit()
    assert process.exit_code == 7


async def _signal_soon(process: TargetProcess) -> None:
    await anyio.lowlevel.checkpoint()
    process.signal(signal.SIGTERM)


async def test_waiting_for_the_exit_can_be_given_up(tmp_path: Path) -> None:
    async with server(tmp_path, "serves") as process:
        with anyio.move_on_after(0.05) as scope:
            await process.wait_exit()
        assert scope.cancelled_caught
        assert process.running


async def test_a_start_that_is_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    process = server(tmp_path, "never opens", start_period=60.0)

    async def start() -> None:
        async with process:
            pytest.fail("it never answers")

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await eventually(lambda: process.running)
        group.cancel_scope.cancel()
    assert is_gone(process.pid)


def test_a_start_given_up_before_there_is_a_process_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start in a thread that was abandoned just then: there was nothing to kill yet."""
    process = server(tmp_path, "serves")
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        process.kill()
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(ServerStartError, match="given up"):
        process.start()
    assert is_gone(started[0].pid)


def test_a_kill_that_is_interrupted_kills_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a second Ctrl+C, while the first one has the process killed."""
    process = server(tmp_path, "serves")
    process.start()
    killpg = os.killpg
    interrupts = [KeyboardInterrupt(), KeyboardInterrupt()]

    def kill(group: int, number: int) -> None:
        if interrupts:
            raise interrupts.pop()
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", kill)
    with pytest.raises(KeyboardInterrupt):
        process.kill()
    assert process.exit_code == -signal.SIGKILL
    assert is_gone(process.pid)


def test_a_process_is_started_once(tmp_path: Path) -> None:
    with server(tmp_path, "serves") as process, pytest.raises(MisuseError, match="twice"):
        process.start()


def test_a_process_that_was_not_started_has_no_pid_and_takes_no_signal(tmp_path: Path) -> None:
    process = server(tmp_path, "serves")
    process.kill()
    with pytest.raises(MisuseError):
        process.signal(signal.SIGTERM)
    with pytest.raises(MisuseError):
        _ = process.pid
