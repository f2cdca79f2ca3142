"""Measure how long a server takes to stop, with the middleware and without: `make bench`.

Each server is stopped in turn, by a signal that comes at any moment between two of uvicorn's looks.
The lame duck is 0: it is time that is wanted. Two moments are measured:

* idle: from the signal to the exit;
* busy: from the last byte of the last answer to the exit.

Writes a table into docs/explanation/cost.md.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import time
from collections import defaultdict
from typing import NamedTuple

from support.client import Client
from support.polling import wait_until

from . import page
from .served import BEGAN, SERVERS, serving

LOOPS = ("asyncio", "uvloop")
INTERRUPTED = "uvicorn, by Ctrl+C"
"""Python takes its modules down at its end. Plain uvicorn dies of SIGTERM before, not of SIGINT."""

ANSWER = 0.4
"""Seconds from the signal to the last answer, about."""


class Exit(NamedTuple):
    """The seconds that one server needed, and its exit codes."""

    idle: float
    busy: float
    codes: tuple[int, int]


def measure(name: str, loop: str) -> Exit:
    """Stop a server twice: without a request, and with one in flight."""
    idle, idle_code = _stop(name, loop, busy=False)
    busy, busy_code = _stop(name, loop, busy=True)
    return Exit(idle, busy, (idle_code, busy_code))


def _stop(name: str, loop: str, *, busy: bool) -> tuple[float, int]:
    """Return the seconds to the exit, from the signal or from the last byte, and its code."""
    number = signal.SIGINT if name == INTERRUPTED else signal.SIGTERM
    command = SERVERS["uvicorn" if name == INTERRUPTED else name]
    with serving(command, "--loop", loop) as server:
        # uvicorn looks every 0.1 s from its start on: any moment between two looks is as likely.
        time.sleep(0.3 + random.uniform(0, 0.1))
        if busy:
            with Client(server.port) as client:
                client.request(f"/slow?s={ANSWER + random.uniform(0, 0.1)}")
                log = server.log_path
                wait_until(lambda: BEGAN in log.read_text(), "the request is in flight")
                signalled = time.monotonic()
                server.signal(number)
                client.response()
                before_last_byte = time.monotonic() - signalled
        else:
            server.signal(number)
            before_last_byte = 0.0
        code = server.wait(20)
        if code is None or server.seconds_to_exit is None:
            raise RuntimeError(f"{name} did not end:\n{server.log_tail()}")
        return server.seconds_to_exit - before_last_byte, code


def compare(rounds: int) -> dict[tuple[str, str], list[Exit]]:
    """Stop each server on each loop, in turn, *rounds* times."""
    exits = defaultdict(list)
    for _ in range(rounds):
        for loop in LOOPS:
            for name in (*SERVERS, INTERRUPTED):
                exits[name, loop].append(measure(name, loop))
    return exits


def table(exits: dict[tuple[str, str], list[Exit]]) -> str:
    """Return medians in milliseconds, with the least and the most."""
    rows = []
    for (name, loop), seen in exits.items():
        codes = sorted({code for each in seen for code in each.codes})
        rows.append(
            (
                *(name, loop, _spread([each.idle for each in seen])),
                *(_spread([each.busy for each in seen]), ", ".join(map(str, codes))),
            )
        )
    return page.table(
        ("server", "loop", "signal to exit, idle", "last byte to exit", "exit code"), rows, named=2
    )


def _spread(seconds: list[float]) -> str:
    least, middle, most = (1000 * find(seconds) for find in (min, statistics.median, max))
    return f"{middle:.0f} ms ({least:.0f} to {most:.0f})"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="How long a server takes to stop.")
    parser.add_argument("--rounds", type=int, default=8, help="stops of each kind")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    parts = (
        f"{options.rounds} rounds on {page.machine('uvicorn', 'uvloop', 'starlette')}",
        table(compare(options.rounds)),
    )
    sys.stdout.write("\n\n".join(parts) + "\n")
    if not options.no_write:
        page.put("exits", *parts)


if __name__ == "__main__":
    main()
