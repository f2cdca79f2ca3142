"""Many clients at once: WebSockets and event streams, and how each of them was ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
from support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.server import Server

PATIENCE = 40.0
"""Seconds until a crowd gives up."""


@dataclass
class Ended:
    """The end of one client, as it saw it."""

    how: str
    """The close code of a WebSocket; `whole`, `half an event` or `cut` of an event stream; the
    status of a request."""
    after: float
    """Seconds since the signal."""
    unanswered: str = ""
    """The message that had no reply by then."""
    kind: int = 0
    """The place of its client among those that `Crowd.run` was given."""


@dataclass
class Crowd:
    """Clients of one server, told to stop when all of them are there."""

    server: Server
    ended: list[Ended] = field(default_factory=list)
    replies: int = 0
    hanging: int = 0
    """Clients whose request is in flight once the log has a line of it, "slow began"."""

    async def run(self, *clients: tuple[int, Callable[[Crowd, int], Awaitable[Ended]]]) -> None:
        """Connect so many of each client, signal the server then, wait for all."""
        self._there = 0
        expected = sum(count for count, _ in clients)
        tasks = []
        # In turns: a drain closes what is in flight in the order in which it came.
        for number in range(max(count for count, _ in clients)):
            for kind, (count, client) in enumerate(clients):
                if number >= count:
                    continue
                tasks.append(asyncio.create_task(self._follow(client, number, kind)))
                if len(tasks) % 50 == 0:  # not more than the accept queue takes
                    await eventually(lambda: self._there >= len(tasks) - 50, within=PATIENCE)
        await eventually(lambda: self._there >= expected, within=PATIENCE)
        await eventually(lambda: self.server.count("slow began") >= self.hanging, within=PATIENCE)
        self._signalled_at = time.monotonic()
        self.server.signal(signal.SIGTERM)
        with anyio.fail_after(PATIENCE):
            await asyncio.gather(*tasks)

    async def _follow(
        self, client: Callable[[Crowd, int], Awaitable[Ended]], number: int, kind: int
    ) -> None:
        self.ended.append(replace(await client(self, number), kind=kind))

    def arrived(self) -> None:
        """Count a client that is connected and served."""
        self._there += 1

    def now(self) -> float:
        return time.monotonic() - self._signalled_at

    def how(self) -> dict[str, int]:
        """Return how many ended in which way."""
        return {
            how: [end.how for end in self.ended].count(how)
            for how in sorted({end.how for end in self.ended})
        }

    def bunched(self, seconds: float) -> float:
        """Return the largest share of the clients of one kind that ended within so many seconds."""
        kinds: dict[int, list[float]] = {}
        for end in self.ended:
            kinds.setdefault(end.kind, []).append(end.after)
        return max(
            sum(begin <= at < begin + seconds for at in times) / len(times)
            for times in kinds.values()
            for begin in times
        )


def spread(drained: Callable[[], Crowd]) -> bool:
    """Return True if no 100 ms had more than a fifth of the ends of a kind, in one of three drains.

    A machine that does something else for 100 ms bunches them, and does not do that each time.
    """
    return any(drained().bunched(0.1) <= 0.2 for _ in range(3))


def talks(path: str, *, pause: float = 0.05) -> Callable[[Crowd, int], Awaitable[Ended]]:
    """Return a WebSocket client that sends, waits for the reply, pauses, over and over."""

    async def client(crowd: Crowd, number: int) -> Ended:
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        said = ""
        url = f"ws://127.0.0.1:{crowd.server.port}{path}"
        async with connect(url, proxy=None, ping_interval=None, compression=None) as websocket:
            crowd.arrived()
            try:
                for turn in range(100_000):
                    said = f"{path}:{number}.{turn}"
                    await websocket.send(said)
                    assert await websocket.recv() == said
                    crowd.replies += 1
                    said = ""
                    await asyncio.sleep(pause)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd is not None else 1006
                return Ended(str(code), crowd.now(), said)
        raise AssertionError("it was never closed")

    return client


def listens_to(path: str) -> Callable[[Crowd, int], Awaitable[Ended]]:
    """Return a WebSocket client that only reads."""

    async def client(crowd: Crowd, number: int) -> Ended:
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        url = f"ws://127.0.0.1:{crowd.server.port}{path}"
        async with connect(url, proxy=None, ping_interval=None, compression=None) as websocket:
            crowd.arrived()
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await websocket.recv()
            code = 1006 if websocket.close_code is None else websocket.close_code
            return Ended(str(code), crowd.now())

    return client


listens = listens_to("/ws/echo")


def reads(path: str, *, method: str = "GET") -> Callable[[Crowd, int], Awaitable[Ended]]:
    """Return an event-stream client, which knows its chunks to the byte.

    With GET it is an EventSource, to the server.
    """

    async def client(crowd: Crowd, number: int) -> Ended:
        reader, writer = await asyncio.open_connection("127.0.0.1", crowd.server.port)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                "Accept: text/event-stream\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b"transfer-encoding: chunked" in head
            tail = await _chunk(reader)
            crowd.arrived()
            while chunk := await _chunk(reader):
                tail = (tail + chunk)[-4:]
            whole = tail.replace(b"\r\n", b"\n").endswith(b"\n\n")
            return Ended("whole" if whole else "half an event", crowd.now())
        except (asyncio.IncompleteReadError, ConnectionError):
            return Ended("cut", crowd.now())
        finally:
            writer.close()

    return client


def hangs(path: str) -> Callable[[Crowd, int], Awaitable[Ended]]:
    """Return a client of a slow request: it gets no answer of the app's, and ends with its status.

    The app writes "slow began" where the request arrives.
    """

    async def client(crowd: Crowd, number: int) -> Ended:
        reader, writer = await asyncio.open_connection("127.0.0.1", crowd.server.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            crowd.hanging += 1
            crowd.arrived()
            answer = await reader.read()
            status = answer.split()[1].decode() if answer else "cut"
        except ConnectionError:
            status = "cut"
        finally:
            writer.close()
        return Ended(status, crowd.now())

    return client


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]
