"""One worker of a service is only starting, or hangs, when all of them are told to stop.

Nobody tells the others which of these it is, and the last one that accepts must not lose anything.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from support.client import get
from support.polling import eventually
from support.ports import free_port
from support.server import Server
from support.traffic import Counted, Traffic, TrafficPlan

if TYPE_CHECKING:
    from pathlib import Path

SLOW_APP = """
import asyncio, os, time
from pathlib import Path
from e2e.app import app as inner

class Once:
    def __init__(self, moment):
        self.path = Path(moment)
    def due(self):
        if self.path.exists():
            print("worker", os.getpid(), "is slow at", self.path.name, flush=True)
            return True
        return False

if Once("import").due():
    time.sleep(2)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await inner(scope, slowly(receive), send)
    else:
        await inner(scope, receive, send)

def slowly(receive):
    async def receiving():
        message = await receive()
        if message["type"] == "lifespan.startup" and Once("startup").due():
            await asyncio.sleep(2)
        return message
    return receiving
"""
FEW = 25
"""Requests that may take long: those on connections that the slow worker itself has accepted."""
PLAN = TrafficPlan(keep_alive=5, fresh=60, think=0.02)


def served(directory: Path, loop: str) -> Server:
    (directory / "slow_app.py").write_text(SLOW_APP)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "slow_app:app", "--workers", "2", "--loop", loop]
    return Server(
        [*command, "--port", str(port), "--no-access-log"],
        directory,
        port=port,
        periods={"lame_duck": 0.3, "grace": 6, "cancel": 1, "cleanup": 2},
        measured=False,
    )


async def stop_in_traffic(server: Server) -> Counted:
    async with Traffic(PLAN, server.port).flowing() as traffic:
        await eventually(lambda: traffic.counted.answered > 20, "answers")
        traffic.mark()
        server.signal(signal.SIGTERM)
        await server.wait_exit()
    return traffic.counted


@pytest.mark.parametrize(("moment", "loop"), [("import", "uvloop"), ("startup", "asyncio")])
def test_a_worker_that_is_starting_costs_no_request(tmp_path: Path, moment: str, loop: str) -> None:
    with served(tmp_path, loop) as server:
        server.wait_for_workers(2)
        (tmp_path / moment).touch()
        os.kill(int(get(server.port, "/pid").body), signal.SIGKILL)
        server.wait_for(f"is slow at {moment}")
        counted = anyio.run(stop_in_traffic, server)
    assert counted.lost == {}, counted
    assert counted.failed == {}
    assert counted.answered > 20
    # The others did not leave the queue to it.
    assert counted.slower_than(1.0) < FEW, counted


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_that_hangs_costs_no_request_but_its_own(tmp_path: Path, loop: str) -> None:
    """It gets the signal, but its loop comes round to nothing: it neither accepts nor closes."""
    with served(tmp_path, loop) as server:
        server.wait_for_workers(2)
        counted = anyio.run(lambda: block_one_and_stop(server))
    assert counted.lost == {}, counted
    assert counted.failed == {}
    assert counted.answered > 20
    # The others did not leave the queue to it.
    assert counted.slower_than(1.0) < FEW, counted


async def block_one_and_stop(server: Server) -> Counted:
    async def block_one() -> None:
        response = await anyio.to_thread.run_sync(get, server.port, "/block?s=3")
        assert response.body == b"unblocked", "its own is answered, too"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(block_one)
        await anyio.to_thread.run_sync(server.wait_for, "block began")
        counted = await stop_in_traffic(server)
    return counted
