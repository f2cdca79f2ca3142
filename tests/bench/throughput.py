"""Requests per second under wrk, beside plain uvicorn and beside other middlewares: `make bench`.

All servers run all the while, and wrk goes from one to the other in short rounds, every second
round the other way. What else the machine does only takes from a round, and meets all alike, so the
best round of each counts. The servers have one core, and wrk has another. What the server's thread
computes for each request (`/proc/PID/schedstat`) depends less on the machine's mood than requests
per second do. Needs Linux and wrk. Writes a table into docs/explanation/cost.md, and a plot beside
it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import page
from .bars import bars
from .served import UVICORN, serving
from .wrapped import FRAMEWORKS, MIDDLEWARES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from graceful_asgi._check.server.process import TargetProcess

PLAIN = "plain"
CONNECTIONS = (1, 16, 256)
PLOT = page.ROOT / "docs" / "assets" / "middlewares.svg"
PACKAGES = (
    *("uvicorn", "uvloop", "httptools", "starlette", "fastapi", "asgi-correlation-id"),
    *("starlette-exporter", "opentelemetry-instrumentation-asgi"),
)


class Sample(NamedTuple):
    """One run of wrk."""

    rate: float
    """Requests per second."""
    cost: float
    """Microseconds of the server's thread for each request."""


class Line(NamedTuple):
    """A middleware in one framework: the best of its rounds beside the best without it."""

    framework: str
    name: str
    rates: tuple[float, ...]
    """Requests per second beside those without a middleware, for each number of connections."""
    cost: float
    """Microseconds added to each request."""


def compare(
    framework: str, names: Sequence[str], connections: Sequence[int], rounds: int, seconds: int
) -> Iterator[Line]:
    """Measure each middleware of *names* in *framework*."""
    samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                serving(
                    (*UVICORN, "--factory", "tests.bench.wrapped:make"),
                    env={"BENCH_FRAMEWORK": framework, "BENCH_MIDDLEWARE": name},
                )
            )
            for name in (PLAIN, *names)
        }
        stack.enter_context(_on_cores_of_their_own(servers.values()))
        for number in range(rounds):
            for count in connections:
                for name in list(servers)[:: -1 if number % 2 else 1]:
                    samples[name, count].append(_wrk(servers[name], count, seconds))
    for name in names:
        ours, plain = ([samples[each, count] for count in connections] for each in (name, PLAIN))
        yield Line(
            framework,
            name,
            tuple(_best_rate(o) / _best_rate(p) for o, p in zip(ours, plain, strict=True)),
            statistics.median(
                _least_cost(o) - _least_cost(p) for o, p in zip(ours, plain, strict=True)
            ),
        )


@contextlib.contextmanager
def _on_cores_of_their_own(servers: Iterable[TargetProcess]) -> Iterator[None]:
    """Give *servers* one core, and this process and the wrk that it starts another."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        yield
        return
    first, second, *_ = sorted(cores)
    for server in servers:
        os.sched_setaffinity(server.pid, {first})
    os.sched_setaffinity(0, {second})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _best_rate(samples: Iterable[Sample]) -> float:
    return max(each.rate for each in samples)


def _least_cost(samples: Iterable[Sample]) -> float:
    return min(each.cost for each in samples)


def _wrk(server: TargetProcess, connections: int, seconds: int) -> Sample:
    before = _computed(server)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}/"], check=True, capture_output=True, text=True
    ).stdout
    computed = _computed(server) - before
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    count = re.search(r"(\d+) requests in", output)
    if rate is None or count is None or "Non-2xx" in output:
        raise RuntimeError(f"wrk printed: {output!r}")
    return Sample(float(rate[1]), computed / 1000 / int(count[1]))


def _computed(server: TargetProcess) -> int:
    """Return the nanoseconds that the main thread has computed."""
    return int(Path(f"/proc/{server.pid}/schedstat").read_text(encoding="ascii").split()[0])


def table(lines: Sequence[Line], connections: Sequence[int]) -> str:
    """Return the change of requests per second, and the time that is added to each."""
    rows = [
        (
            line.framework,
            MIDDLEWARES[line.name][0],
            *(f"{100 * (rate - 1):+.1f} %" for rate in line.rates),
            f"{line.cost:+.1f} us",
        )
        for line in lines
    ]
    heads = [f"{count} connection{'s' * (count > 1)}" for count in connections]
    return page.table(("framework", "middleware", *heads, "each request"), rows, named=2)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Requests per second, beside other middlewares.")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of wrk")
    parser.add_argument("--seconds", type=int, default=1, help="seconds of each run of wrk")
    parser.add_argument("--only", default="", help="one framework; not written")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.stdout.write("wrk is not installed (Debian: apt-get install wrk): not measured\n")
        return
    lines = [
        line
        for framework in FRAMEWORKS
        if options.only in framework
        for line in compare(
            framework, list(MIDDLEWARES), CONNECTIONS, options.rounds, options.seconds
        )
    ]
    parts = (
        f"{options.rounds} rounds of {options.seconds} s on {page.machine(*PACKAGES)}",
        table(lines, CONNECTIONS),
    )
    sys.stdout.write("\n\n".join(parts) + "\n")
    if not options.only:
        page.put("throughput", *parts)
        groups = {
            framework: {
                MIDDLEWARES[line.name][0].replace("`", ""): line.cost
                for line in lines
                if line.framework == framework
            }
            for framework in FRAMEWORKS
        }
        PLOT.write_text(
            bars("Microseconds that a middleware adds to a request", groups), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
