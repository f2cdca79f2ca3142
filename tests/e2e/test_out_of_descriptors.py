"""A process that has no descriptor left stops as any other, on both loops.

Nothing in flight is lost, and nothing that is cut looks complete.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from support.client import Client
from support.ports import free_port
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

LIMIT = 64
IN_FLIGHT = 4


def limited(directory: Path, app: str, *args: str, loop: str, grace: float = 6.0) -> Server:
    """Return a server that may have `LIMIT` descriptors."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--loop", loop, *args]
    return Server(
        ["bash", "-c", f'ulimit -n {LIMIT}; exec "$@"', "bash", *command],
        directory,
        port=port,
        ready="Uvicorn running on",
        periods={"lame_duck": 0.2, "grace": grace, "cancel": 0.5, "cleanup": 2.0},
    )


@contextlib.contextmanager
def full(server: Server) -> Iterator[None]:
    """Open idle connections until no descriptor is left, and a few more for the accept queue."""
    with contextlib.ExitStack() as stack:
        for _ in range(LIMIT + 6):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
        yield


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("app", ["e2e.app:app", "e2e.app:bare"])
def test_what_is_in_flight_is_answered_as_it_is_without_the_middleware(
    tmp_path: Path, beside: ThreadPoolExecutor, loop: str, app: str
) -> None:
    with limited(tmp_path, app, loop=loop) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server.port)) for _ in range(IN_FLIGHT)]
        for client in clients:
            client.request("/slow?s=2")
        server.wait_for("slow began", count=IN_FLIGHT)
        with full(server):
            server.signal(signal.SIGTERM)
            answers = [beside.submit(client.response) for client in clients]
            assert [answer.result().status for answer in answers] == [200] * IN_FLIGHT
        code = server.wait()
        if app == "e2e.app:app":
            assert code == 0
            assert server.count("clean after") == 1
            assert "failed" not in server.log


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_body_without_a_length_that_is_cut_ends_in_a_reset(tmp_path: Path, loop: str) -> None:
    with (
        limited(tmp_path, "e2e.app:app", loop=loop, grace=1.0) as server,
        Client(server.port) as cut,
    ):
        cut.request("/stream?n=1000", version="1.0")
        assert cut.head()[0] == 200
        with full(server):
            server.signal(signal.SIGTERM)
            assert not cut.ends()
        assert server.wait() == 1


AUDITED = """
import os, sys
from e2e.app import app

def audit(event, arguments):
    if os.path.exists("stopping") and event in ("import", "open"):
        os.write(2, f"AUDIT {event} {arguments[0]}\\n".encode())

sys.addaudithook(audit)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stuck_report_imports_nothing(tmp_path: Path, loop: str) -> None:
    """It opens the files that it quotes, and can do without."""
    (tmp_path / "audited.py").write_text(AUDITED)
    with uvicorn(
        tmp_path, app="audited:app", loop=loop, lame_duck=0.1, grace=0.6, cancel=0.2
    ) as server:
        with Client(server.port) as client:
            client.request("/slow?s=60")
            server.wait_for("slow began")
            (tmp_path / "stopping").touch()
            server.signal(signal.SIGTERM)
            assert client.response().status == 503
        assert server.wait() == 1
        reported = server.log.partition("cleanup (SIGTERM)")[0]
        assert "stuck: http GET /slow" in reported
        assert "AUDIT import" not in reported, reported


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stop_opens_no_file_and_imports_nothing(tmp_path: Path, loop: str) -> None:
    """A descriptor may be missing for it, or the right to read it."""
    (tmp_path / "audited.py").write_text(AUDITED)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "audited:app", "--port", str(port), "--loop", loop]
    with Server(
        command, tmp_path, port=port, ready="Uvicorn running on", periods={"grace": 10}
    ) as server:
        with Client(server.port) as client:
            client.request("/slow?s=1")
            server.wait_for("slow began")
            (tmp_path / "stopping").touch()
            server.signal(signal.SIGTERM)
            assert client.response().status == 200
            server.wait_for("clean after")
        assert server.wait() == 0
        during = server.log.partition("clean after")[0]
        assert "AUDIT" not in during, during
