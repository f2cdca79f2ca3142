"""Whatever ends a check, and whenever: nothing that it has started is left running."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from support.command import NO_LOAD, SERVER, started
from support.polling import eventually
from support.ports import free_port

from graceful_asgi._check.server.port import answers

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Only the waiting is asynchronous."""
    return "asyncio"


def end(check: subprocess.Popen[str], number: int) -> str:
    """Send a signal, and return what it has to say once it has ended."""
    check.send_signal(number)
    return check.communicate(timeout=30)[1]


def wait_for(check: subprocess.Popen[str], step: str) -> None:
    """Read its progress up to a step."""
    assert check.stdout is not None
    while step not in check.stdout.readline():
        assert check.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", ["starting", "under load", "told to stop"])
async def test_an_interrupted_check_leaves_nothing_running(
    tmp_path: Path, number: int, step: str
) -> None:
    note = tmp_path / "pid"
    behaviour = "never opens" if step == "starting" else "ignores SIGTERM"
    wait = ["--signal-after", "60" if step == "under load" else "0.1"]
    server = ["sh", "-c", f'echo $$ > {note}; exec "$@"', "sh", *SERVER, behaviour, "{port}"]
    with started("check", *NO_LOAD, *wait, "--", *server) as check:
        wait_for(check, step)
        await eventually(lambda: note.exists() and note.read_text().strip() != "", within=20.0)
        err = end(check, number)
    assert check.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_sigterm_ends_a_check_that_was_started_in_the_background() -> None:
    """A shell without job control ignores SIGINT for what it puts there."""
    background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    command = ["--", *SERVER, "serves", "{port}"]
    with started("check", *NO_LOAD, "--signal-after", "60", *command, through=background) as check:
        wait_for(check, "under load")
        err = end(check, signal.SIGTERM)
    assert check.returncode == 130, err


async def test_a_second_interruption_leaves_nothing_running_either(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    server = ["sh", "-c", f'echo $$ > {note}; exec "$@"', "sh", *SERVER, "serves", "{port}"]
    with started("check", *NO_LOAD, "--signal-after", "60", "--", *server) as check:
        wait_for(check, "under load")
        check.send_signal(signal.SIGINT)
        err = end(check, signal.SIGINT)
    assert check.returncode == 130, err
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interruption_at_its_end_does_not_change_the_exit_code(number: int) -> None:
    command = ["--", *SERVER, "serves", "{port}"]
    with started("check", *NO_LOAD, "--signal-after", "60", *command) as check:
        wait_for(check, "under load")
        check.send_signal(signal.SIGINT)
        assert check.stderr is not None
        while "interrupted" not in (line := check.stderr.readline()):
            assert line
        end(check, number)
    assert check.returncode == 130


async def test_what_the_server_has_started_goes_with_it() -> None:
    child_port = free_port()
    command = ["--", *SERVER, "has a child", "{port}", str(child_port)]

    def child_answers() -> bool:
        return answers("127.0.0.1", child_port, "/", within=5.0)

    with started("check", *NO_LOAD, "--signal-after", "60", *command) as check:
        await eventually(child_answers, within=20.0)
        end(check, signal.SIGINT)
    await eventually(lambda: not child_answers())
