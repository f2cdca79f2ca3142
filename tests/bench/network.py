"""Count 100 000 requests of each server behind a network with a delay, and how many are lost.

`make network`, as root; half an hour. One process and workers, from 0 to 80 ms one way, with and
without a lame duck, at SIGTERM, SIGINT and after `graceful-asgi drain`; 10 000 at 150 ms; and
plain uvicorn in the same traffic, which has to lose. Each stop is a line in the file `--tally`: a
run that was broken off goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from integration.networked import Case, Stopped, stop_under_traffic
from support.network import make_network
from support.traffic import Counted, TrafficPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.networked import Program, Stop
    from support.network import Network

DELAYS: Final = (0.0, 0.005, 0.02, 0.08)
SLOWEST: Final = 0.15
STOPS: Final[tuple[Stop, ...]] = ("SIGTERM", "SIGINT", "drain, SIGTERM")
SERVERS: Final[tuple[tuple[Program, int], ...]] = (("uvicorn", 1), ("run", 2))
PLAIN: Final[tuple[tuple[Program, int], ...]] = (("plain uvicorn", 1), ("plain uvicorn", 2))
PLAN: Final = TrafficPlan(keep_alive=100, fresh=300, think=0.15)
INTERRUPTED: Final = 130
"""The exit code after SIGINT or SIGTERM."""


@dataclass(eq=False)
class Job:
    """One server behind one network, stopped until enough requests are counted."""

    program: Program
    workers: int
    delay: float
    wanted: int
    stops: int = 0
    total: Counted = field(default_factory=Counted)
    exit_codes: Counter[int] = field(default_factory=Counter)

    @property
    def key(self) -> list[Any]:
        return [self.program, self.workers, self.delay]

    @property
    def is_plain(self) -> bool:
        return self.program == "plain uvicorn"

    @property
    def is_done(self) -> bool:
        return self.total.total >= self.wanted

    def next_case(self) -> Case:
        return next(itertools.islice(cases(self.program, self.workers), self.stops, None))

    def add(self, counted: Counted, exit_code: int) -> None:
        self.stops += 1
        self.total += counted
        self.exit_codes[exit_code] += 1

    def is_good(self) -> bool:
        """Return True if nothing was lost; of plain uvicorn nothing is asked."""
        total = self.total
        return self.is_plain or not (total.lost or total.failed or set(self.exit_codes) - {0})

    def __str__(self) -> str:
        name = f"{self.program} --workers {self.workers}, {self.delay * 1000:g} ms one way"
        total = replace(self.total, losses=[]) if self.is_plain else self.total
        return f"{name}, {self.stops} stops, exit codes {dict(self.exit_codes)}: {total}"


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
            before=1.2,
            plan=PLAN,
        )


def jobs(requests: int) -> list[Job]:
    """Return what is to be counted for *requests* of each server."""
    each = requests // len(DELAYS)
    made = [Job(*server, delay, each) for server in SERVERS for delay in DELAYS]
    made += [Job(*server, SLOWEST, requests // 10) for server in SERVERS]
    made += [Job(*server, delay, requests // 100) for server in PLAIN for delay in DELAYS]
    return made


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Tally:
    """The file with a line for each stop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def read_into(self, jobs: list[Job]) -> None:
        """Add the stops of earlier runs to *jobs*."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        for line in map(json.loads, lines):
            for job in jobs:
                if job.key == line["job"]:
                    job.add(_counted(line), line["exit_code"])

    def write(self, job: Job, case: Case, stopped: Stopped) -> None:
        counted = stopped.counted
        line = {
            "job": job.key,
            "case": str(case),
            "exit_code": stopped.exit_code,
            "seconds": round(stopped.seconds, 2),
            "answered": counted.answered,
            "failed": dict(counted.failed),
            "lost": dict(counted.lost),
            "refused": counted.refused,
            "latencies": [round(each, 2) for each in counted.latencies if each > 1],
            "losses": counted.losses,
        }
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        """Keep the file under another name: the next run counts anew."""
        self._path.replace(self._path.with_suffix(".done"))


def _counted(line: dict[str, Any]) -> Counted:
    return Counted(
        answered=line["answered"],
        failed=Counter({int(status): count for status, count in line["failed"].items()}),
        lost=Counter(line["lost"]),
        refused=line["refused"],
        latencies=line["latencies"],
        losses=line["losses"],
    )


def stop_once(job: Job, network: Network, tally: Tally) -> None:
    """Start the job's server, stop it under traffic, and count."""
    case = job.next_case()
    stopped = stop_under_traffic(case, network)
    tally.write(job, case, stopped)
    job.add(stopped.counted, stopped.exit_code)
    counted = stopped.counted
    if not job.is_plain and (counted.lost or counted.failed or stopped.exit_code):
        say(f"  {case}, {job.delay * 1000:g} ms, exit code {stopped.exit_code}: {counted}")


def count(all_jobs: list[Job], tally: Tally, at_once: int) -> None:
    """Stop one server after the other, in turns, until each job is done.

    An interrupt waits for the stops that are under way: they end their servers.
    """
    waiting: queue.SimpleQueue[tuple[Job, Network]] = queue.SimpleQueue()
    interrupted = threading.Event()

    def work() -> None:
        while not interrupted.is_set():
            try:
                job, made = waiting.get_nowait()
            except queue.Empty:
                return
            stop_once(job, made, tally)
            if job.is_done:
                say(str(job))
            else:
                waiting.put((job, made))

    with ExitStack() as stack:
        for job in all_jobs:
            if not job.is_done:
                waiting.put((job, stack.enter_context(make_network(job.delay))))
        with ThreadPoolExecutor(at_once) as pool:
            try:
                for each in [pool.submit(work) for _ in range(at_once)]:
                    each.result()
            except BaseException:
                interrupted.set()
                raise


def main() -> int:
    """Run everything; return 1 if a request was lost, or if plain uvicorn lost none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="of each server")
    parser.add_argument("--at-once", type=int, default=2, help="stops")
    parser.add_argument("--tally", type=Path, help="a file; what it has is not counted again")
    options = parser.parse_args()
    all_jobs = jobs(options.requests)
    with tempfile.TemporaryDirectory() as directory:
        tally = Tally(options.tally or Path(directory) / "tally")
        tally.read_into(all_jobs)
        try:
            count(all_jobs, tally, options.at_once)
        except KeyboardInterrupt:
            say("interrupted: the networks are gone")
            return INTERRUPTED
        tally.finish()
    for job in all_jobs:
        say(str(job))
    for server in SERVERS + PLAIN:
        own = [job.total for job in all_jobs if job.key[:2] == list(server)]
        lost, total = sum(c.lost.total() for c in own), sum(c.total for c in own)
        say(f"{server[0]} --workers {server[1]}: lost {lost} of {total}")
    plain_loses = any(job.total.lost for job in all_jobs if job.is_plain)
    return int(not (plain_loses and all(job.is_good() for job in all_jobs)))


if __name__ == "__main__":
    sys.exit(main())
