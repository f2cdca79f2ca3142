"""Looks at idle servers beside plain uvicorn: wake-ups, processor time, threads, descriptors.

A server with a thread that spins answers every request. Only a look at the idle process shows it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from support.client import get
from support.command import run
from support.server import Server, uvicorn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PERIOD = 1.0
"""Seconds of a look. uvicorn's main loop wakes up ten times in each second."""

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


class Activity(NamedTuple):
    """The activity of a process in `PERIOD`, and its threads and descriptors after that."""

    wake_ups: int
    processor_time: float
    threads: int
    descriptors: int


def watch(server: Server) -> Activity:
    """Look at *server* while nothing goes on."""
    wake_ups, processor_time = _counters(server.pid)
    time.sleep(PERIOD)
    more_wake_ups, more_processor_time = _counters(server.pid)
    return Activity(
        more_wake_ups - wake_ups,
        more_processor_time - processor_time,
        len(os.listdir(f"/proc/{server.pid}/task")),
        len(os.listdir(f"/proc/{server.pid}/fd")),
    )


def _counters(pid: int) -> tuple[int, float]:
    """Return how often the threads of a process have gone on after a wait, and its seconds."""
    files = Path(f"/proc/{pid}/task").glob("*/status")
    lines = [line for file in files for line in file.read_text().splitlines()]
    wake_ups = sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return wake_ups, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_as_quiet(ours: Activity, plain: Activity) -> None:
    """Check that *ours* did as little as *plain*, but for a few wake-ups and some milliseconds."""
    ticks = 10 * PERIOD  # plain uvicorn may have got fewer on a busy machine
    assert ours.wake_ups <= max(plain.wake_ups, ticks) + 5 * PERIOD
    assert ours.processor_time <= plain.processor_time + PERIOD / 10


@LOOPS
def test_a_server_is_as_quiet_as_plain_uvicorn_while_serving_held_and_resumed(
    tmp_path: Path, loop: str
) -> None:
    directory = tmp_path / "sockets"

    def command(name: str) -> None:
        assert run(name, "--control-dir", str(directory)).code == 0

    with uvicorn(tmp_path, loop=loop, app="e2e.app:bare") as server:
        assert get(server.port, "/").status == 200
        plain = watch(server)
    env = {"GRACEFUL_CONTROL_DIR": str(directory)}
    with uvicorn(tmp_path, loop=loop, env=env, lame_duck=0.2) as server:
        assert get(server.port, "/").status == 200
        serving = watch(server)
        assert_as_quiet(serving, plain)
        command("drain")
        assert_as_quiet(watch(server), plain)
        command("resume")
        resumed = watch(server)
        assert_as_quiet(resumed, plain)
        for _ in range(3):
            command("drain")
            command("resume")
        again = watch(server)
        assert_as_quiet(again, plain)
        assert (again.threads, again.descriptors) == (resumed.threads, resumed.descriptors)
