"""Traffic from many clients, each request counted by what its client saw of it. HTTP/1.1 and TCP.

Fresh clients open a connection for each request, at a fixed rate. Keep-alive clients think between
two requests. Some requests are POSTs of more than one segment.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import anyio

from graceful_asgi._check.client.http1 import HttpConnection, Request, connect
from graceful_asgi._check.result.counts import Lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from anyio.abc import TaskGroup

TWO_SEGMENTS: Final = 2000
"""Bytes of a body that does not fit into one packet together with its head."""

LONGEST_ANSWER: Final = 15.0
"""Seconds after which a client gives a request up for lost."""

LATE: Final = 0.7
"""Seconds after which a client that has connected is late with its first request. A closing server
closes a connection that is silent for a second, and on a busy machine a client may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPlan:
    """Clients, their requests and their pauses."""

    keep_alive: int = 10
    """Clients that keep their connection."""
    fresh: float = 100.0
    """Connections opened a second."""
    think: float = 0.1
    """Seconds, at the most, from an answer to the next request of a keep-alive client."""
    reuse_within: float = 0.4
    """Seconds from one request to the next on the same connection, at the most; then a keep-alive
    client opens a new one, as a client's pool does. A server closes what is idle for half a second.
    On a machine so busy that a client thinks for longer than it should, the two would meet, which
    HTTP leaves to the client (RFC 9112, 9.3.1)."""
    posts: float = 0.3
    """The share of requests that are a POST of two segments."""
    hosts: Sequence[str] = ("127.0.0.1",)
    path: str = "/"
    post_path: str = "/echo"


@dataclass(slots=True)
class Counted:
    """The fate of the requests."""

    answered: int = 0
    """Complete answers with 200."""
    failed: Counter[int] = field(default_factory=Counter)
    """Complete answers with another status."""
    lost: Counter[str] = field(default_factory=Counter)
    """Requests written in full that got no complete answer."""
    refused: int = 0
    """Requests that were never written, because no connection could be made."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from the connect, or from the write on an open connection, to the answer."""
    losses: list[str] = field(default_factory=list)
    """The time and the manner of each loss, for people."""

    @property
    def total(self) -> int:
        return self.answered + self.failed.total() + self.lost.total()

    def slower_than(self, seconds: float) -> int:
        return sum(latency > seconds for latency in self.latencies)

    def __iadd__(self, other: Counted) -> Counted:
        self.answered += other.answered
        self.failed += other.failed
        self.lost += other.lost
        self.refused += other.refused
        self.latencies += other.latencies
        self.losses += other.losses
        return self

    def __str__(self) -> str:
        return (
            f"lost {self.lost.total()} of {self.total}, failed {dict(self.failed)}, "
            f"refused {self.refused}, slower than 1 s {self.slower_than(1)}, "
            f"slowest {max(self.latencies, default=0):.2f} s, {dict(self.lost)} {self.losses[:8]}"
        )


class Traffic:
    """Clients of one port, for as long as `flowing` lasts. They count in *counted*.

    A function in the place of the port is asked for that of each new connection.
    """

    def __init__(
        self, plan: TrafficPlan, port: int | Callable[[], int], counted: Counted | None = None
    ) -> None:
        self.counted = Counted() if counted is None else counted
        self._plan = plan
        self._port = port
        self._over = False
        self._marked = 0.0
        self._requests = {
            host: (
                Request.make("GET", plan.path, authority="traffic"),
                _post(plan.post_path),
            )
            for host in plan.hosts
        }

    def mark(self) -> None:
        """Note that the server is told to stop now, for the text of a loss."""
        self._marked = time.monotonic()

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[Traffic]:
        """Send for the length of a block; at its end wait for what is under way."""
        async with anyio.create_task_group() as clients:
            for number in range(self._plan.keep_alive):
                clients.start_soon(self._keep_alive, number)
            if self._plan.fresh:
                clients.start_soon(self._fresh, clients)
            try:
                yield self
            finally:
                self._over = True

    def _pick(self, number: int) -> tuple[str, Request]:
        host = self._plan.hosts[number % len(self._plan.hosts)]
        return host, self._requests[host][random.random() < self._plan.posts]

    async def _fresh(self, clients: TaskGroup) -> None:
        began, number = time.monotonic(), 0
        while not self._over:
            clients.start_soon(self._one, number)
            number += 1
            await asyncio.sleep(max(0.0, began + number / self._plan.fresh - time.monotonic()))

    async def _one(self, number: int) -> None:
        host, request = self._pick(number)
        began = time.monotonic()
        connection = await self._connect(host)
        if connection is not None:
            with contextlib.closing(connection):
                await self._ask(connection, request, began)

    async def _keep_alive(self, number: int) -> None:
        connection: HttpConnection | None = None
        last = 0.0
        try:
            while not self._over:
                host, request = self._pick(number)
                began = time.monotonic()
                expired = began - last > self._plan.reuse_within
                if connection is not None and (expired or connection.is_stale()):
                    connection.close()
                    connection = None
                silent = None if connection is None else began - last
                if connection is None:
                    connection = await self._connect(host)
                if connection is None:
                    await asyncio.sleep(0.05)
                    continue
                last = time.monotonic()
                if not await self._ask(connection, request, began, silent):
                    connection.close()
                    connection = None
                await asyncio.sleep(random.random() * self._plan.think)
        finally:
            if connection is not None:
                connection.close()

    async def _connect(self, host: str) -> HttpConnection | None:
        while True:
            began = time.monotonic()
            try:
                port = self._port if isinstance(self._port, int) else self._port()
                connection = await connect(host, port, within=LONGEST_ANSWER)
            except OSError:
                self.counted.refused += 1
                return None
            if time.monotonic() - began < LATE or not connection.is_stale():
                return connection
            connection.close()  # nothing was written, so another one does as well

    async def _ask(
        self,
        connection: HttpConnection,
        request: Request,
        began: float,
        silent: float | None = None,
    ) -> bool:
        """Make one request; return True if the connection may carry another one.

        *silent* are the seconds since the last request on this connection; None for its first one.
        """
        written = time.monotonic()
        if connection.send(request) is not None:
            return False  # the write itself has shown that the connection is dead
        giving_up = asyncio.get_running_loop().call_later(LONGEST_ANSWER, connection.give_up)
        outcome = await connection.receive()
        giving_up.cancel()
        if isinstance(outcome, Lost):
            self._count_loss(outcome, request, written, silent)
            return False
        self.counted.latencies.append(time.monotonic() - began)
        if outcome.status == 200:
            self.counted.answered += 1
        else:
            self.counted.failed[outcome.status] += 1
        return outcome.reusable

    def _count_loss(
        self, outcome: Lost, request: Request, written: float, silent: float | None
    ) -> None:
        reused = "fresh" if silent is None else f"{silent:.3f} s after the one before"
        now = time.monotonic()
        self.counted.lost[outcome.kind] += 1
        self.counted.losses.append(
            f"{request.event.method.decode()} ({reused}) written {written - self._marked:+.3f} s, "
            f"{outcome.kind} after {now - written:.3f} s"
        )


def _post(path: str) -> Request:
    length = ("Content-Length", str(TWO_SEGMENTS))
    request = Request.make("POST", path, authority="traffic", headers=[length])
    return replace(request, data=request.data + b"x" * TWO_SEGMENTS)
