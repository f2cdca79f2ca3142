"""A log that nobody reads (a stuck collector, Ctrl+S in a terminal) delays no step of a stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support.client import Client, is_refused
from support.polling import wait_until
from support.ports import free_port
from support.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = ("graceful_asgi", "run", "e2e.app:bare")
PROGRAMS = {
    "uvicorn, asyncio": ("uvicorn", "e2e.app:app", "--loop", "asyncio"),
    "uvicorn, uvloop": ("uvicorn", "e2e.app:app", "--loop", "uvloop"),
    "run, asyncio": (*RUN, "--loop", "asyncio"),
    "run --workers 2, asyncio": (*RUN, "--workers", "2", "--loop", "asyncio"),
    "run --workers 2, uvloop": (*RUN, "--workers", "2", "--loop", "uvloop"),
}
PERIODS = {"lame_duck": 0.3, "grace": 10.0, "cancel": 0.3, "cleanup": 0.5}


class Pipe:
    """A named pipe; the test holds both of its ends."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = ""

    def read(self) -> str:
        """Return everything that was written up to now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 65536):
                self._text += data.decode(errors="replace")
        return self._text

    def fill(self) -> None:
        """Leave no room for another byte."""
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while os.write(self._fd, b"x" * size):
                    pass

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    with contextlib.closing(Pipe(tmp_path / "pipe")) as pipe:
        yield pipe


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no pipe can be opened for both")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_log_that_nobody_reads_delays_no_step_of_a_stop(
    tmp_path: Path, pipe: Pipe, program: str
) -> None:
    port = free_port()
    uvicorn = [*PROGRAMS[program], "--port", str(port), "--no-access-log"]
    command = [sys.executable, "-m", *uvicorn]
    redirected = ["sh", "-c", 'exec "$@" >pipe 2>&1', "sh", *command]
    with (
        Server(redirected, tmp_path, port=port, ready_path="/", periods=PERIODS) as server,
        Client(port) as client,
    ):
        count = 2 if "2" in program else 1
        wait_until(lambda: pipe.read().count("startup complete") == count, "the server")
        client.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
        wait_until(lambda: "echo began" in pipe.read(), "the request")
        pipe.fill()
        server.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(port), "the listener close")
        client.send(b"x")  # it closes while work goes on
        assert client.response().body == b"1"
        # uvicorn's own lines at its end wait for a reader, in the server: the hard deadline ends
        # that. The parent of workers has no such line.
        assert server.wait(server.hard_deadline + 4) in (0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no pipe can be opened for both")
def test_a_stuck_worker_is_killed_at_its_deadline_by_a_parent_whose_log_is_stuck(
    tmp_path: Path, pipe: Pipe
) -> None:
    port = free_port()
    command = [sys.executable, "-m", *RUN, "--workers", "2", "--port", str(port)]
    redirected = ["sh", "-c", 'exec "$@" >pipe 2>&1', "sh", *command, "--no-access-log"]
    with (
        Server(
            redirected, tmp_path, port=port, ready_path="/", periods={**PERIODS, "grace": 1.0}
        ) as server,
        Client(port) as client,
    ):
        wait_until(lambda: pipe.read().count("startup complete") == 2, "the server")
        client.request("/gil")
        wait_until(lambda: "gil held" in pipe.read(), "the request")
        pipe.fill()
        server.signal(signal.SIGTERM)
        assert server.wait(server.hard_deadline + 4) == 1
