"""Another user of the machine takes the names by which workers know of each other."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from support.server import Server, uvicorn
from support.traffic import Counted, Traffic, TrafficPlan

from graceful_asgi._servers.shared_sockets import MARKERS, Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="no other system has these names"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

NOBODY = 65534
SQUATTER = f"""
import os, socket, sys, time
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
taken = [socket.socket(socket.AF_UNIX) for _ in sys.argv[1:]]
for sock, name in zip(taken, sys.argv[1:]):
    sock.bind("\\0" + name)
    sock.listen(64)
print("taken", flush=True)
time.sleep(60)
"""
PLAN = TrafficPlan(keep_alive=5, fresh=60, think=0.02)


@contextlib.contextmanager
def squatted(workers: list[int]) -> Iterator[None]:
    """Bind every marker of *workers* as another user: both "stopping" and "closed"."""
    names = [Process(pid).name_of(marker)[1:].decode() for pid in workers for marker in MARKERS]
    command = [sys.executable, "-c", SQUATTER, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as squatter:
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == b"taken\n"
            yield
        finally:
            squatter.kill()


async def stop_one_and_then_all(server: Server, worker: int) -> Counted:
    async with Traffic(PLAN, server.port).flowing() as traffic:
        os.kill(worker, signal.SIGTERM)  # the parent starts another one in its place
        await anyio.to_thread.run_sync(lambda: server.wait_for("startup complete", count=3))
        assert traffic.counted.refused == 0, "its sibling has served on"
        traffic.mark()
        server.signal(signal.SIGTERM)
        await server.wait_exit()
    return traffic.counted


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_request_is_lost_or_refused(tmp_path: Path, loop: str) -> None:
    options = ("--workers", "2", "--no-access-log")
    with uvicorn(
        tmp_path, *options, loop=loop, measured=False, lame_duck=0.3, grace=6, cleanup=2
    ) as server:
        server.wait_for_workers(2)
        workers = [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", server.log)]
        with squatted(workers):
            counted = anyio.run(stop_one_and_then_all, server, workers[0])
        assert counted.lost == {}, counted
        assert counted.failed == {}
        assert counted.answered > 50
        assert server.wait() == 0
