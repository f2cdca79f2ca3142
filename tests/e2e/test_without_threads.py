"""A system that has no thread to give at the stop: a full pids cgroup, no memory for a stack."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits another process")

LOOPS = ["asyncio", "uvloop"]


def take_the_memory_for_threads(server: Server) -> None:
    """Limit the address space to a little more than now: no thread's stack fits.

    What coverage has measured might not fit either, so it is not to measure.
    """
    import resource

    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (4 << 20)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_stop_loses_nothing(
    tmp_path: Path, loop: str, number: signal.Signals, beside: ThreadPoolExecutor
) -> None:
    with uvicorn(tmp_path, loop=loop, measured=False, lame_duck=0.3, grace=5) as server:
        slow = beside.submit(get, server.port, "/slow?s=1.5&name=old")
        server.wait_for("slow began old")
        take_the_memory_for_threads(server)
        server.signal(number)
        assert slow.result().status == 200
        assert server.wait() == 0
        assert "clean after" in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("loop", LOOPS)
def test_the_hard_deadline_holds_all_the_same(tmp_path: Path, loop: str) -> None:
    """Its threads are those of the start."""
    with uvicorn(tmp_path, loop=loop, measured=False, lame_duck=0.1, grace=0.2) as server:
        with Client(server.port) as client:
            client.request("/swallow")
            server.wait_for("swallow began")
            take_the_memory_for_threads(server)
            server.signal(signal.SIGTERM)
            assert client.response().status == 503
        assert server.wait() == 1
        assert "hard deadline" in server.log
