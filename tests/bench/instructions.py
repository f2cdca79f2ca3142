"""Instructions, cache misses and mispredicted branches of a request, counted in a real server.

    make bench, or PYTHONPATH=tests python -m tests.bench.instructions

uvicorn runs under callgrind, which executes each instruction on a processor of its own making. What
else the machine does changes none of its counts, and two runs differ by less than 0.3 %. Many
requests come first: then Python has adapted its byte codes, and the simulated caches are full. The
server does not tick: under callgrind a request takes fifty times as long, and as many more ticks
would fall on it. Garbage collections are counted without callgrind. Needs Linux and valgrind.
Writes a table into docs/explanation/cost.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from . import page
from .served import serving
from .wrapped import FRAMEWORKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from graceful_asgi._check.server.process import TargetProcess

VARIANTS: Final = ("plain", "pass-through", "graceful")
PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "starlette", "fastapi")
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ENDS_WITH: Final = b"\r\n\r\nok"

WARM_UP: Final = 640
CONNECTIONS: Final = 16
COLLECTIONS: Final = 10_240, 256
"""Requests and connections for the garbage collections. With few requests at once there are none:
as many objects go as come."""

EVENTS: Final = {
    "instructions": ("Ir",),
    "reads and writes of memory": ("Dr", "Dw"),
    "misses of the first instruction cache": ("I1mr",),
    "misses of the first data cache": ("D1mr", "D1mw"),
    "misses of the last cache": ("ILmr", "DLmr", "DLmw"),
    "mispredicted branches": ("Bcm", "Bim"),
}
"""Rows of the table, and what callgrind calls the events that are summed up in them."""


class Counted(NamedTuple):
    """The events and garbage collections of one server."""

    events: dict[str, float]
    """For each request, by the names of `EVENTS`."""
    collections: int
    """Runs of the garbage collector in the requests of `COLLECTIONS`."""


def count(framework: str, variant: str, requests: int) -> Counted:
    """Count what *framework* does for each of *requests* with the middleware *variant*."""
    return Counted(events(framework, variant, requests), collections(framework, variant))


def events(framework: str, variant: str, requests: int) -> dict[str, float]:
    """Return the events of `EVENTS` for each of *requests*."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "counted")
        callgrind = (
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes"),
            *("--branch-sim=yes", f"--callgrind-out-file={out}"),
        )
        with _served(framework, variant, callgrind) as server, _connected(server) as sockets:
            _request(sockets, WARM_UP)
            _control(server, "--instr=on")
            _request(sockets, WARM_UP)
            _control(server, "--zero")
            _request(sockets, requests)
            _control(server, "--dump")
        counted = _read(Path(f"{out}.1"))
    return {row: sum(counted[name] for name in names) / requests for row, names in EVENTS.items()}


def collections(framework: str, variant: str) -> int:
    """Return how often the garbage collector runs in the requests of `COLLECTIONS`."""
    requests, connections = COLLECTIONS
    with _served(framework, variant) as server, _connected(server, connections) as sockets:
        _request(sockets, requests)
        before = _collections(server)
        _request(sockets, requests)
        return _collections(server) - before


@contextlib.contextmanager
def _served(framework: str, variant: str, under: Sequence[str] = ()) -> Iterator[TargetProcess]:
    environment = {
        "BENCH_FRAMEWORK": framework,
        "BENCH_MIDDLEWARE": variant,
        "PYTHONHASHSEED": "0",  # the same dictionaries in each server
        "UV_USE_IO_URING": "0",  # valgrind knows no io_uring
    }
    command = (*under, sys.executable, "-m", "tests.bench.tickless")
    with serving(command, env=environment, start_period=120.0) as server:
        yield server


@contextlib.contextmanager
def _connected(
    server: TargetProcess, connections: int = CONNECTIONS
) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((server.host, server.port), timeout=60))
            for _ in range(connections)
        ]


def _request(sockets: Sequence[socket.socket], requests: int) -> None:
    """Send *requests*, one on each socket at a time, and read the answers."""
    for _ in range(requests // len(sockets)):
        for each in sockets:
            each.sendall(REQUEST)
        for each in sockets:
            answer = b""
            while not answer.endswith(ENDS_WITH):
                if not (received := each.recv(65536)):
                    raise RuntimeError(f"the server closed a connection after {answer!r}")
                answer += received


def _control(server: TargetProcess, order: str) -> None:
    command = ["callgrind_control", order, str(server.pid)]
    subprocess.run(command, check=True, capture_output=True)


def _read(path: Path) -> dict[str, int]:
    text = path.read_text(encoding="utf-8")
    names = re.search(r"^events: (.*)$", text, re.M)
    sums = re.search(r"^(?:summary|totals): (.*)$", text, re.M)
    if names is None or sums is None:
        raise RuntimeError(f"callgrind wrote no sums: {text[:500]!r}")
    # It leaves out the last columns where they are zero.
    return dict.fromkeys(names[1].split(), 0) | dict(
        zip(names[1].split(), map(int, sums[1].split()), strict=False)
    )


def _collections(server: TargetProcess) -> int:
    url = f"http://{server.host}:{server.port}/collections"
    with urllib.request.urlopen(url, timeout=60) as response:
        return int(json.load(response))


def table(counted: Mapping[str, Sequence[Counted]]) -> str:
    """Return what each framework of *counted* does alone, and what a middleware adds."""
    rows = []
    for framework, (plain, *others) in counted.items():
        for name in EVENTS:
            base = plain.events[name]
            more = [each.events[name] - base for each in others]
            rows.append((framework, name, f"{base:,.0f}", *(_added(each, base) for each in more)))
        runs = plain.collections
        name = f"garbage collections in {COLLECTIONS[0]:,} requests"
        rows.append(
            (framework, name, str(runs), *(f"{each.collections - runs:+d}" for each in others))
        )
    heads = ("framework", "for each request", "alone", "one that does nothing")
    return page.table((*heads, "`GracefulMiddleware`"), rows, named=2)


def _added(more: float, base: float) -> str:
    if abs(more) < 0.5:
        return "0"
    return f"{more:+,.0f} ({100 * more / base:+.1f} %)"


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description="Instructions of a request in a real server.")
    parser.add_argument("--requests", type=int, default=1600, help="requests that are counted")
    parser.add_argument("--only", default="", help="one framework; not written")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.stdout.write(
            "valgrind is not installed (Debian: apt-get install valgrind): no counts\n"
        )
        return
    counted = {
        framework: [count(framework, variant, options.requests) for variant in VARIANTS]
        for framework in FRAMEWORKS
        if options.only in framework
    }
    parts = (
        f"{options.requests:,} requests on {CONNECTIONS} connections, garbage collections on "
        f"{COLLECTIONS[1]}; {page.machine(*PACKAGES)}",
        table(counted),
    )
    sys.stdout.write("\n\n".join(parts) + "\n")
    if not options.only:
        page.put("instructions", *parts)


if __name__ == "__main__":
    main()
