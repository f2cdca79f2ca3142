"""Count 100 000 requests of each server behind a network with a delay, and how many are lost.

`make network`, as root; half an hour. One process and workers, from 0 to 80 ms one way, with and
without a lame duck, at SIGTERM, SIGINT and after `graceful-asgi drain`; 10 000 at 150 ms; and
plain uvicorn in the same traffic, which has to lose.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.networked import Case, stop_under_traffic
from support.network import network
from support.traffic import Counted, TrafficPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.networked import Program, Stop

DELAYS: Final = (0.0, 0.005, 0.02, 0.08)
SLOWEST: Final = 0.15
STOPS: Final[tuple[Stop, ...]] = ("SIGTERM", "SIGINT", "drain, SIGTERM")
SERVERS: Final[tuple[tuple[Program, int], ...]] = (("uvicorn", 1), ("run", 2))
PLAN: Final = TrafficPlan(keep_alive=60, fresh=200, think=0.05)


def cases(program: Program, workers: int) -> Iterator[Case]:
    """Yield the cases of one server, over and over, with every other choice taken in turn."""
    stops = STOPS if program != "plain uvicorn" else STOPS[:2]  # it has no control socket
    turns = itertools.cycle(itertools.product(("asyncio", "uvloop"), (True, False), (False, True)))
    for lame_duck, stop in itertools.cycle(itertools.product((0.0, 1.0), stops)):
        loop, privileged, ipv6 = next(turns)
        yield Case(
            program=program,
            workers=workers,
            lame_duck=lame_duck,
            stop=stop,
            loop=loop,
            privileged=privileged,
            ipv6=ipv6,
            plan=PLAN,
        )


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def count(program: Program, workers: int, delay: float, wanted: int) -> Counted:
    """Stop the server again and again until so many requests have been counted."""
    total, stops = Counted(), 0
    with network(delay) as made, tempfile.TemporaryDirectory() as directory:
        for case in cases(program, workers):
            counted = stop_under_traffic(case, made, Path(directory)).counted
            total += counted
            stops += 1
            if (counted.lost or counted.failed) and program != "plain uvicorn":
                say(f"  {case}, {delay * 1000:g} ms: {counted}")
            if total.total >= wanted:
                break
    name = f"{program} --workers {workers}, {delay * 1000:g} ms one way, {stops} stops"
    say(f"{name}: {total}")
    return total


def main() -> int:
    """Run everything; return 1 if a request was lost, or if plain uvicorn lost none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="of each server")
    parser.add_argument("--at-once", type=int, default=2, help="networks")
    options = parser.parse_args()
    each = options.requests // len(DELAYS)
    jobs = [(*server, delay, each) for server in SERVERS for delay in DELAYS]
    jobs += [(*server, SLOWEST, options.requests // 10) for server in SERVERS]
    with ThreadPoolExecutor(options.at_once) as pool:
        totals = list(pool.map(lambda job: count(*job), jobs))
        plain = count("plain uvicorn", 1, 0.02, 2_000)
    for server in SERVERS:
        own = [total for job, total in zip(jobs, totals, strict=True) if job[:2] == server]
        lost, total = sum(c.lost.total() for c in own), sum(c.total for c in own)
        say(f"{server[0]} --workers {server[1]}: lost {lost} of {total}")
    lost = sum(total.lost.total() + total.failed.total() for total in totals)
    return int(lost > 0 or plain.lost.total() == 0)


if __name__ == "__main__":
    sys.exit(main())
