"""Looks at idle servers beside plain uvicorn: wake-ups, processor time, threads, descriptors.

A server with a thread that spins answers every request. Only a look at the idle process shows it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from support.client import get
from support.command import run
from support.polling import wait_until
from support.server import Server, uvicorn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PERIOD = 1.0
"""Seconds of a look."""
TICKS = 10
"""Wake-ups of uvicorn's main loop in a second. On a busy machine it has fewer."""

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


class Activity(NamedTuple):
    """The activity of a process in a second, and its threads and descriptors after that."""

    wake_ups: float
    processor_time: float
    threads: int
    descriptors: int


def watch(server: Server) -> Activity:
    """Look at *server* while nothing goes on."""
    began, (wake_ups, processor_time) = time.monotonic(), _counters(server.pid)
    time.sleep(PERIOD)
    more_wake_ups, more_processor_time = _counters(server.pid)
    seconds = time.monotonic() - began  # on a busy machine this process may sleep for longer
    return Activity(
        (more_wake_ups - wake_ups) / seconds,
        (more_processor_time - processor_time) / seconds,
        *_threads_and_descriptors(server.pid),
    )


def _threads_and_descriptors(pid: int) -> tuple[int, int]:
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


def _counters(pid: int) -> tuple[int, float]:
    """Return how often the threads of a process have gone on after a wait, and its seconds."""
    lines = []
    for file in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
            lines += file.read_text().splitlines()
    wake_ups = sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return wake_ups, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_as_quiet(ours: Activity, plain: Activity) -> None:
    """Check that *ours* did as little as *plain*, but for a few wake-ups and some milliseconds."""
    assert ours.wake_ups <= max(plain.wake_ups, TICKS) + 5
    assert ours.processor_time <= plain.processor_time + 0.1


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
        assert_as_quiet(watch(server), plain)

        def are_no_more() -> bool:
            threads, descriptors = _threads_and_descriptors(server.pid)
            return threads <= resumed.threads and descriptors <= resumed.descriptors

        wait_until(are_no_more, "no more threads and descriptors than before three drains")
