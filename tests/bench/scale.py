"""How thousands of clients are sent away: `make bench`. First and last end, exit, loop, memory.

One server, and so many clients of one kind: idle connections, requests that hang, event streams, or
WebSockets. The lame duck is 5 s and the grace period 3 s. Idle connections are due at the end of
the lame duck, requests that hang at the end of the grace period; the others are spread evenly over
the lame duck. Clients and server share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.ports import free_port
from support.server import Server

LAME_DUCK: Final = 5.0
GRACE: Final = 3.0
KINDS: Final = ("idle", "hung", "event streams", "WebSockets")
ARRIVING: Final = 100
"""How many clients connect at the same time: fewer than the accept queue holds."""

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
    """So many clients of one kind, and when each of them got its end."""

    kind: str
    port: int
    served: int = 0
    wrong: int = 0
    ends: list[float] = field(default_factory=list)

    async def client(self, number: int, places: asyncio.Semaphore) -> None:
        """Connect, wait for the end, and check that it is the right one."""
        try:
            async with places:
                # One address has too few ports for all.
                source = (f"127.0.{1 + number // 20_000}.1", 0)
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, local_addr=source
                )
                headers = _HEADERS.get(self.kind, "")
                path = _PATHS[self.kind]
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
                if self.kind in _SERVED:
                    await reader.readuntil(_SERVED[self.kind])
                self.served += 1
            right = await self._end(reader, writer)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            right = False
            self.ends.append(time.monotonic())
        self.wrong += not right

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.kind == "WebSockets":
            frame = await reader.readexactly(4)
            self.ends.append(time.monotonic())
            writer.write(b"\x88\x82\0\0\0\0" + frame[2:])
            await reader.read()
            return frame[0] == 0x88 and int.from_bytes(frame[2:], "big") == 1012
        rest = await reader.read()
        self.ends.append(time.monotonic())
        if self.kind == "idle":
            return rest == b""
        if self.kind == "hung":
            return rest.startswith(b"HTTP/1.1 503")
        return rest.endswith(b"tick\n\n\r\n0\r\n\r\n") or rest == b"0\r\n\r\n"


@dataclass(frozen=True)
class Result:
    """How one drain went, in seconds after the signal unless it says otherwise."""

    first: float
    last: float
    due: tuple[float, float]
    wrong: int
    exit_code: int
    exited: float
    blocked: int
    """Milliseconds of the loop's thread, without garbage collections."""
    collected: int
    """Milliseconds of the longest garbage collection."""
    memory: float
    """KiB of the server for each client."""


def server_of(directory: Path, loop: str) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.scale_app:app", "--loop", loop]
    options = ["--port", str(port), "--no-access-log", "--timeout-keep-alive", "600"]
    return Server(
        [*command, *options, "--ws-ping-interval", "600", "--ws", "websockets-sansio"],
        directory,
        port=port,
        ready="Uvicorn running on",
        periods={"lame_duck": LAME_DUCK, "grace": GRACE, "cancel": 5, "cleanup": 10},
    )


def resident(pid: int) -> int:
    """Return the KiB of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return 0 if found is None else int(found[1])


async def drain(kind: str, count: int, loop: str) -> Result:
    """Stop a server with *count* clients of *kind*."""
    with tempfile.TemporaryDirectory() as directory:
        async with server_of(Path(directory), loop) as server:
            before = resident(server.pid)
            crowd, places = Crowd(kind, server.port), asyncio.Semaphore(ARRIVING)
            tasks = [asyncio.create_task(crowd.client(n, places)) for n in range(count)]
            while crowd.served + len(crowd.ends) < count:  # noqa: ASYNC110  # a count
                await asyncio.sleep(0.05)
            await asyncio.sleep(1)  # a request that hangs says nothing of its arrival
            memory = (resident(server.pid) - before) / count
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait, 60)
            exited = time.monotonic() - began
            await asyncio.wait(tasks, timeout=10)
            found = re.search(r"block (\d+) ms, longest collection (\d+) ms", server.log)
    due = {"idle": (LAME_DUCK, LAME_DUCK), "hung": (LAME_DUCK + GRACE, LAME_DUCK + GRACE)}
    return Result(
        first=min(crowd.ends) - began,
        last=max(crowd.ends) - began,
        due=due.get(kind, (0.0, LAME_DUCK)),
        wrong=crowd.wrong + count - len(crowd.ends),
        exit_code=code,
        exited=exited,
        blocked=-1 if found is None else int(found[1]),
        collected=-1 if found is None else int(found[2]),
        memory=memory,
    )


def row(kind: str, count: int, results: list[Result]) -> list[str]:
    """Return the medians of *results* as a row of the table."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    first = median([result.first - result.due[0] for result in results])
    last = median([result.last - result.due[1] for result in results])
    return [
        kind,
        f"{count:,}",
        f"{first:+.2f} s",
        f"{last:+.2f} s",
        f"{max(result.wrong for result in results)}",
        f"{max(result.exit_code for result in results)}",
        f"{median([result.exited for result in results]):.1f} s",
        f"{median([result.blocked for result in results]):.0f} ms",
        f"{median([result.collected for result in results]):.0f} ms",
        f"{median([result.memory for result in results]):.1f} KiB",
    ]


HEADINGS: Final = (
    "clients",
    "number",
    "first end after its time",
    "last end after its time",
    "wrong ends",
    "exit code",
    "exit",
    "longest block",
    "longest garbage collection",
    "memory for each",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sizes", nargs="+", type=int, default=(1_000, 4_000, 10_000))
    parser.add_argument("--loop", default="asyncio", choices=("asyncio", "uvloop"))
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.stdout.write(f"| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}\n")
    for kind in given.kinds:
        for count in given.sizes:
            rounds = range(given.rounds)
            results = [asyncio.run(drain(kind, count, given.loop)) for _ in rounds]
            sys.stdout.write(f"| {' | '.join(row(kind, count, results))} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
