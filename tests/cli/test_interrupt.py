"""Whatever ends a check, and whenever: nothing that it has started is left running."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from check.waiting import eventually

from graceful_asgi.check.port import answers, free_port

from .running import NO_LOAD, SERVER, start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Only the waiting is asynchronous."""
    return "asyncio"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stage", ["starting", "under load", "told to stop"])
async def test_an_interrupted_check_leaves_nothing_running(
    tmp_path: Path, number: int, stage: str
) -> None:
    note = tmp_path / "pid"
    behaviour = "never opens" if stage == "starting" else "ignores SIGTERM"
    wait = ["--signal-after", "60" if stage == "under load" else "0.1"]
    server = ["sh", "-c", f'echo $$ > {note}; exec "$@"', "sh", *SERVER, behaviour, "{port}"]
    check = start("check", *NO_LOAD, *wait, "--", *server)
    try:
        assert check.stdout is not None
        while stage not in check.stdout.readline():
            assert check.poll() is None
        await eventually(lambda: note.exists() and note.read_text().strip() != "", within=10.0)
        check.send_signal(number)
        _, err = check.communicate(timeout=20)
    finally:
        check.kill()
    assert check.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_sigterm_ends_a_check_that_was_started_in_the_background() -> None:
    """A shell without job control ignores SIGINT for what it puts there."""
    background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    command = ["--", *SERVER, "serves", "{port}"]
    check = start("check", *NO_LOAD, "--signal-after", "60", *command, through=background)
    try:
        assert check.stdout is not None
        while "under load" not in check.stdout.readline():
            assert check.poll() is None
        check.send_signal(signal.SIGINT)
        check.send_signal(signal.SIGTERM)
        _, err = check.communicate(timeout=20)
    finally:
        check.kill()
    assert check.returncode == 130, err


async def test_what_the_server_has_started_goes_with_it(tmp_path: Path) -> None:
    child_port = free_port()
    check = start(
        "check",
        *NO_LOAD,
        "--signal-after",
        "60",
        "--",
        *SERVER,
        "has a child",
        "{port}",
        str(child_port),
    )
    try:
        await eventually(lambda: answers("127.0.0.1", child_port, "/", within=0.5), within=10.0)
        check.send_signal(signal.SIGINT)
        check.communicate(timeout=20)
    finally:
        check.kill()
    await eventually(lambda: not answers("127.0.0.1", child_port, "/", within=0.5))
