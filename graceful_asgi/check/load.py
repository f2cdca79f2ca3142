"""The load: clients that send requests until the server has exited, and count what they saw.

Knows no process and no signal: `Load.mark_signalled` says when, `until` says that it is over.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import anyio

from graceful_asgi.check.client import Connection, connect
from graceful_asgi.check.counts import Answered, LoadResult, Outcome, Tally
from graceful_asgi.check.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from graceful_asgi.check.plan import LoadPlan

# What the server sent before it exited is in our kernel's buffers by then; this is for reading it.
_READ_OUT_PERIOD: Final = 0.5

Single: TypeAlias = Literal["slow", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStatistics:
    """A load while it runs."""

    sent: int
    lost: int
    refused: int
    in_flight: int


class Load:
    """One run of a plan against ``host:port``. Single use, one event loop (asyncio or uvloop)."""

    def __init__(self, plan: LoadPlan, *, host: str = "127.0.0.1", port: int) -> None:
        self._plan: Final = plan
        self._host = host
        self._port = port
        self._random = random.Random()
        self._before = Tally(deliberate=plan.deliberate_statuses)
        self._after = Tally(deliberate=plan.deliberate_statuses)
        self._current = self._before
        self._ended = False
        self._connecting = 0
        self._refused = 0
        self._waiting: set[anyio.CancelScope] = set()
        self._none_waiting = anyio.Event()
        self._singles: dict[Single, Outcome] = {}
        self._setup_error: SetupError | None = None
        self._group: TaskGroup | None = None

    def mark_signalled(self) -> None:
        """From here on requests count as sent after the signal. Idempotent, synchronous.

        Call it with no await between it and the signal itself.
        """
        self._current = self._after

    def statistics(self) -> LoadStatistics:
        """The figures of this instant."""
        counts = self._before.counts() + self._after.counts()
        return LoadStatistics(
            sent=counts.sent,
            lost=counts.lost_total,
            refused=self._refused,
            in_flight=len(self._waiting),
        )

    async def run(self, *, until: Callable[[], Awaitable[object]], within: float) -> LoadResult:
        """Send until `until` returns (the server has exited) or `within` seconds have passed.

        What is unanswered then, and not in our receive buffers, is lost. Raises `SetupError` when a
        connect fails before the signal.
        """
        async with anyio.create_task_group() as group:
            self._start(group)
            with anyio.move_on_after(within):
                await until()
            self._ended = True
            await self._read_out()
            self._refused += self._connecting
            group.cancel_scope.cancel()
        if self._setup_error is not None:
            raise self._setup_error
        return LoadResult(
            before=self._before.counts(),
            after=self._after.counts(),
            refused=self._refused,
            slow=self._singles.get("slow"),
            stream=self._singles.get("stream"),
        )

    def _start(self, group: TaskGroup) -> None:
        self._group = group
        for _ in range(self._plan.keep_alive_clients):
            group.start_soon(self._keep_alive_client)
        for _ in range(self._plan.fresh_clients):
            group.start_soon(self._fresh_client)
        if self._plan.slow_path is not None:
            group.start_soon(self._single, "slow", self._plan.slow_path)
        if self._plan.stream_path is not None:
            group.start_soon(self._single, "stream", self._plan.stream_path)

    async def _read_out(self) -> None:
        if self._waiting:
            with anyio.move_on_after(_READ_OUT_PERIOD):
                await self._none_waiting.wait()
        for scope in tuple(self._waiting):
            scope.cancel()
        if self._waiting:
            await self._none_waiting.wait()

    # -- clients --------------------------------------------------------------------------------

    async def _keep_alive_client(self) -> None:
        connection: Connection | None = None
        try:
            while not self._ended:
                if connection is None or connection.is_stale():
                    if connection is not None:
                        connection.close()
                    connection = await self._connect()
                    if connection is None:
                        return
                outcome = await self._exchange(connection, self._plan.path)
                if not (isinstance(outcome, Answered) and outcome.reusable):
                    connection.close()
                    connection = None
                await self._think()
        finally:
            if connection is not None:
                connection.close()

    async def _fresh_client(self) -> None:
        while not self._ended:
            connection = await self._connect()
            if connection is None:
                return
            try:
                await self._exchange(connection, self._plan.path)
            finally:
                connection.close()
            await self._think()

    async def _single(self, name: Single, path: str) -> None:
        await anyio.sleep(self._plan.single_after)
        connection = await self._connect()
        if connection is None:
            return
        try:
            self._singles[name] = await self._exchange(connection, path)
        finally:
            connection.close()

    async def _think(self) -> None:
        await anyio.sleep(self._random.uniform(0, self._plan.think_period))

    # -- one request ----------------------------------------------------------------------------

    async def _connect(self) -> Connection | None:
        """A new connection, or None when this client is to stop."""
        self._connecting += 1
        try:
            for attempt in range(1 + self._plan.connect_retries):
                if self._ended:
                    break
                if attempt:
                    await anyio.sleep(self._plan.connect_retry_interval)
                try:
                    connection = await connect(
                        self._host, self._port, within=self._plan.connect_period
                    )
                except OSError as error:
                    if self._current is self._before:
                        self._fail(error)
                        return None
                    continue
                if self._ended:
                    connection.close()
                    return None
                return connection
            self._refused += 1
            return None
        finally:
            self._connecting -= 1

    def _fail(self, error: OSError) -> None:
        if self._setup_error is None:
            place = f"{self._host}:{self._port}"
            self._setup_error = SetupError(f"connecting to {place} before the signal: {error!r}")
            self._setup_error.__cause__ = error
        if self._group is not None:
            self._group.cancel_scope.cancel()

    async def _exchange(self, connection: Connection, path: str) -> Outcome:
        # No await between the look at the connection, the write and the choice of the tally: the
        # signal is sent by this same loop, so the request is on the side it was written on.
        tally = self._current
        unsent = connection.send(path)
        if unsent is not None:
            tally.record(unsent)
            return unsent
        tally.sent += 1
        outcome: Outcome = connection.lost("timeout")
        with anyio.move_on_after(self._plan.answer_period) as scope:
            self._waiting.add(scope)
            try:
                outcome = await connection.receive()
            finally:
                self._waiting.discard(scope)
                if self._ended and not self._waiting:
                    self._none_waiting.set()
        tally.record(outcome)
        return outcome
