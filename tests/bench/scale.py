"""Stops with thousands of clients: `make bench`. First and last end, exit, loop, memory.

One server, and so many clients of one kind: idle connections, requests that hang, event streams, or
WebSockets. The lame duck is 5 s and the grace period 3 s. Idle connections are due at the end of
the lame duck, requests that hang at the end of the grace period; the others are spread evenly over
the lame duck. The last kind is half requests that hang and half event streams that may finish: all
of them are due as the grace period ends. Clients and server share the machine.

Writes the table between the markers of docs/explanation/cost.md, once every row was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import math
import os
import platform
import re
import resource
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from support.client import Client
from support.polling import eventually
from support.ports import free_port
from support.server import Server

PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "cost.md"
LAME_DUCK: Final = 5.0
GRACE: Final = 3.0
BOTH: Final = "hung and event streams"
PLAIN: Final = "WebSockets, plain uvicorn"
"""Plain uvicorn waits for the others without an end, but for idle connections."""
SIZES: Final = (1_000, 4_000, 10_000)
ROWS: Final = {
    **dict.fromkeys(("idle", "hung", "event streams", "WebSockets"), SIZES),
    PLAIN: (10_000,),
    BOTH: (16_000,),
}
ARRIVING: Final = 100
"""Clients that connect at the same time: fewer than the accept queue holds."""

_PATHS: Final = {"idle": "/", "hung": "/hang", "event streams": "/events", "WebSockets": "/ws"}
_HEADERS: Final = {
    "event streams": "Accept: text/event-stream\r\n",
    "WebSockets": (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    ),
}
_SERVED: Final = {"idle": b"ok", "event streams": b"tick\n\n\r\n", "WebSockets": b"\r\n\r\n"}
"""The last bytes that a client gets before it counts as served. One that hangs gets none."""


@dataclass
class Crowd:
    """Clients, and when each of them got its end."""

    port: int
    served: int = 0
    wrong: int = 0
    ends: list[tuple[float, str]] = field(default_factory=list)
    """The time of each end, and what its client was."""

    async def client(self, kind: str, number: int, places: asyncio.Semaphore) -> None:
        """Connect, wait for the end, and check that it is the right one."""
        with contextlib.ExitStack() as stack:
            try:
                async with places:
                    # One address has too few ports for all.
                    source = (f"127.0.{1 + number // 20_000}.1", 0)
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", self.port, local_addr=source
                    )
                    stack.callback(writer.close)
                    headers = _HEADERS.get(kind, "")
                    request = f"GET {_PATHS[kind]} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
                    writer.write(request.encode())
                    if kind in _SERVED:
                        await reader.readuntil(_SERVED[kind])
                    self.served += 1
                right = await self._end(kind, reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                right = False
                self.ends.append((time.monotonic(), kind))
        self.wrong += not right

    async def _end(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if kind == "WebSockets":
            frame = await reader.readexactly(4)
            self.ends.append((time.monotonic(), kind))
            writer.write(b"\x88\x82\0\0\0\0" + frame[2:])
            await reader.read()
            return frame[0] == 0x88 and int.from_bytes(frame[2:], "big") == 1012
        rest = await reader.read()
        self.ends.append((time.monotonic(), kind))
        if kind == "idle":
            return rest == b""
        if kind == "hung":
            return rest.startswith(b"HTTP/1.1 503")
        return rest.endswith(b"tick\n\n\r\n0\r\n\r\n") or rest == b"0\r\n\r\n"


@dataclass(frozen=True)
class Result:
    """The course of one drain, in seconds after the signal unless it says otherwise."""

    kind: str
    count: int
    first: float
    last: float
    wrong: int
    exit_code: int
    exited: float
    blocked: int
    """Milliseconds of the loop's thread, without garbage collections."""
    collected_before: int
    """Milliseconds of the longest garbage collection before the stop."""
    collected: int
    """The same from the stop on."""
    memory: float
    """KiB of the server for each client."""


def server_of(directory: Path, kind: str, loop: str) -> Server:
    port = free_port()
    app = "plain" if kind == PLAIN else "app"
    command = [sys.executable, "-m", "uvicorn", f"bench.scale_app:{app}", "--loop", loop]
    options = ["--port", str(port), "--no-access-log", "--timeout-keep-alive", "600"]
    return Server(
        [*command, *options, "--ws-ping-interval", "600", "--ws", "websockets-sansio"],
        directory,
        port=port,
        env={"GRACEFUL_EVENT_STREAMS": "finish"} if kind == BOTH else {},
        ready="Uvicorn running on",
        periods={"lame_duck": LAME_DUCK, "grace": GRACE, "cancel": 5, "cleanup": 10},
    )


def kinds_of(kind: str, count: int) -> list[str]:
    """Return what each of *count* clients is."""
    if kind == BOTH:
        return ["hung", "event streams"] * (count // 2)
    return ["WebSockets" if kind == PLAIN else kind] * count


def resident(pid: int) -> int:
    """Return the KiB of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return 0 if found is None else int(found[1])


async def drain(kind: str, count: int, loop: str) -> Result:
    """Stop a server with *count* clients of *kind*."""
    with tempfile.TemporaryDirectory() as directory:
        async with server_of(Path(directory), kind, loop) as server:
            before = resident(server.pid)
            crowd, places = Crowd(server.port), asyncio.Semaphore(ARRIVING)
            clients = enumerate(kinds_of(kind, count))
            tasks = [asyncio.create_task(crowd.client(one, n, places)) for n, one in clients]
            await eventually(lambda: crowd.served + len(crowd.ends) >= count, within=math.inf)
            await asyncio.sleep(1)  # a request that hangs says nothing of its arrival
            await asyncio.to_thread(begin, server)
            memory = (resident(server.pid) - before) / count
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait, 60)
            exited = time.monotonic() - began
            await asyncio.wait(tasks, timeout=10)
            found = re.search(r"block (\d+) ms.* before (\d+) ms, since (\d+) ms", server.log)
    blocked, collected_before, collected = (-1, -1, -1) if found is None else found.groups()
    return Result(
        kind=kind,
        count=count,
        first=min(at for at, one in crowd.ends if kind != BOTH or one == "hung") - began,
        last=max(at for at, _ in crowd.ends) - began,
        wrong=crowd.wrong + count - len(crowd.ends),
        exit_code=code,
        exited=exited,
        blocked=int(blocked),
        collected_before=int(collected_before),
        collected=int(collected),
        memory=memory,
    )


def begin(server: Server) -> None:
    """Make the server measure from now on."""
    with Client(server.port) as client:
        client.get("/begin")


def row(result: Result) -> str:
    """Return *result* as a row of the table."""
    grace_end = LAME_DUCK + GRACE
    due = {
        "idle": (LAME_DUCK, LAME_DUCK),
        "hung": (grace_end, grace_end),
        BOTH: (grace_end, grace_end),
        PLAIN: (0.0, 0.0),
    }
    first, last = due.get(result.kind, (0.0, LAME_DUCK))
    cells = [
        result.kind,
        f"{result.count:,}",
        f"{round(result.first - first, 2) + 0.0:+.2f} s",  # and no -0.00
        f"{round(result.last - last, 2) + 0.0:+.2f} s",
        f"{result.wrong}",
        f"{result.exit_code}",
        f"{result.exited:.1f} s",
        f"{result.blocked} ms",
        f"{result.collected_before} ms",
        f"{result.collected} ms",
        f"{result.memory:.0f} KiB",
    ]
    return f"| {' | '.join(cells)} |"


HEADINGS: Final = (
    "clients",
    "number",
    "first end after its time",
    "last end after its time",
    "wrong ends",
    "exit code",
    "exit",
    "longest block of the loop",
    "longest garbage collection before the stop",
    "and from then on",
    "memory for each",
)


def table(results: list[Result]) -> str:
    """Return all that stands between the markers."""
    sides = ["---", *["---:"] * (len(HEADINGS) - 1)]
    rows = [f"| {' | '.join(HEADINGS)} |", f"| {' | '.join(sides)} |", *map(row, results)]
    release = ".".join(platform.release().split(".")[:2])
    machine = f"{os.cpu_count()} cores, {platform.system()} {release}"
    versions = f"uvicorn {version('uvicorn')}, Python {platform.python_version()}, asyncio"
    return "\n".join(
        [
            *rows,
            "",
            f"{versions}; {machine}. The clients share the machine.",
        ]
    )


def measured(tally: Path) -> dict[tuple[str, int], Result]:
    """Return the results that a run before this one has left in *tally*."""
    lines = tally.read_text().splitlines() if tally.exists() else []
    results = [Result(**json.loads(line)) for line in lines]
    return {(result.kind, result.count): result for result in results}


def write(text: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    part = re.compile(r"(<!-- scale -->\n).*?(<!-- /scale -->)", re.S)
    PAGE.write_text(part.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page), encoding="utf-8")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description="How thousands of clients are sent away.")
    parser.add_argument("--kinds", nargs="+", choices=ROWS, default=tuple(ROWS))
    parser.add_argument("--sizes", nargs="+", type=int, help="how many clients, for each kind")
    parser.add_argument("--loop", default="asyncio", choices=("asyncio", "uvloop"))
    parser.add_argument("--tally", type=Path, help="where results are kept; measured once")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # a full collection of the clients would make the server look late
    results = {} if given.tally is None else measured(given.tally)
    for kind in given.kinds:
        for count in given.sizes or ROWS[kind]:
            if (kind, count) not in results:
                result = results[kind, count] = asyncio.run(drain(kind, count, given.loop))
                if given.tally is not None:
                    with given.tally.open("a") as file:
                        file.write(json.dumps(asdict(result)) + "\n")
            sys.stdout.write(row(results[kind, count]) + "\n")
            sys.stdout.flush()
    wanted = [(kind, count) for kind, counts in ROWS.items() for count in counts]
    if given.loop == "asyncio" and all(each in results for each in wanted):
        write(table([results[each] for each in wanted]))


if __name__ == "__main__":
    main()
