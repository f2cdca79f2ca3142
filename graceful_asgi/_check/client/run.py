"""One run as its clients share it: the server's place, the moments of the run, the counting.

Every request is counted here, by one rule: the side of the signal it was written on, and what came.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from ..errors import PathError, SetupError
from ..result.counts import (
    Answered,
    AnyOutcome,
    Complete,
    LoadResult,
    Lost,
    Outcome,
    Rejected,
    Side,
    Unsent,
    Wrong,
)
from ..result.timeline import Timeline
from .expectation import shown
from .http1 import Request, authority, connect, merged
from .relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answer import HttpAnswer
    from .expectation import Expectation
    from .http1 import HttpConnection, Watch
    from .plan import Endpoint, Header, LoadPlan

# Errors of this machine: a connection that fails with one of them was not refused by the server.
_OUR_OWN: Final = frozenset(
    {errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
)
_PATIENT: Final = 0.9
"""Seconds for which a closing server has to wait for the first byte on a connection. A client here
writes at once. If it has not in so long a time, its own process stood still."""


@dataclass(frozen=True, slots=True)
class Written:
    """A request was written, before the signal or after it."""

    before: bool
    at: float
    """The time at which its client began to wait: for the connection, if that was opened for it."""

    def side_now(self, *, signalled: bool) -> Side:
        """Return the side it belongs to, if its outcome is learned now."""
        if not self.before:
            return "after"
        return "during" if signalled else "before"


class Run:
    """One run as its clients see it. Single use, one event loop (asyncio or uvloop)."""

    def __init__(
        self,
        plan: LoadPlan,
        *,
        host: str,
        port: int,
        expectations: dict[Endpoint, Expectation] | None = None,
    ) -> None:
        self.plan: Final = plan
        self.host: Final = host
        self.port: Final = port
        self.authority: Final = authority(host, port)
        self.timeline: Final = Timeline()
        self.poised: Final = asyncio.Event()
        """Set when what is to be in flight at the signal should be written."""
        self.signalled: Final = asyncio.Event()
        self.over: Final = asyncio.Event()
        """Set when the server has gone: nobody writes from here on."""
        self.until: Final = anyio.CancelScope()
        """The wait for the server's end. Cancelled, it ends the run."""
        self.error: SetupError | None = None
        self.expectations: Final = {} if expectations is None else expectations
        """The right answers, as far as they have been learned."""
        self.notes: Final[list[str]] = []
        """Remarks about the learned answers, for the reader of the result."""
        self._relay = Relay(plan.latency) if plan.latency else None
        self._waiting: set[HttpConnection] = set()
        self._none_waiting = asyncio.Event()

    # -- moments --------------------------------------------------------------------------------

    def mark_signalled(self) -> None:
        """Count requests as sent after the signal from here on. Idempotent, synchronous."""
        if not self.signalled.is_set():
            self.timeline.signalled_at = time.monotonic()
            self.signalled.set()

    async def end(self, within: float) -> None:
        """Stop all writing, and read what has come yet: for `within` seconds at most."""
        self.over.set()
        if self._waiting:
            with anyio.move_on_after(within):
                await self._none_waiting.wait()
        for connection in tuple(self._waiting):
            connection.give_up()
        if self._waiting:
            await self._none_waiting.wait()
        if self._relay is not None:
            self._relay.close()

    # -- one connection -------------------------------------------------------------------------

    async def connect(self, load: LoadResult) -> HttpConnection | None:
        """Connect, and return None when this client is to stop: refused, or the run is over."""
        wanted_at = time.monotonic()
        try:
            for attempt in range(1 + self.plan.connect_retries):
                if attempt:
                    await asyncio.sleep(self.plan.connect_retry_interval)
                if self.over.is_set():
                    break
                try:
                    connection = await self._open()
                except OSError as error:
                    if not self.signalled.is_set() or error.errno in _OUR_OWN:
                        self._fail(error)
                        return None
                    continue
                if self.over.is_set():
                    connection.close()
                    return None
                if self.signalled.is_set() and self._is_too_late_for(connection):
                    connection.close()  # nothing was written, so another connection does as well
                    continue
                connection.wanted_at = wanted_at
                return connection
        except asyncio.CancelledError:
            if self.over.is_set():
                self._refuse(load)
            raise
        self._refuse(load)
        return None

    async def connect_before_load(self, named: str, *, within: float) -> HttpConnection:
        """Connect to find something out: without the latency of the plan, and not counted.

        Raises `PathError`, with what it was for as `named`.
        """
        try:
            return await connect(self.host, self.port, within=within)
        except OSError as error:
            raise PathError(f"{named}: no connection ({error!r})") from error

    async def _open(self) -> HttpConnection:
        period = self.plan.connect_period
        if self._relay is None:
            return await connect(self.host, self.port, within=period)
        return await self._relay.connect(self.host, self.port, within=period)

    def _is_too_late_for(self, connection: HttpConnection) -> bool:
        return connection.seconds_to_close() >= _PATIENT + self.plan.latency

    def _refuse(self, load: LoadResult) -> None:
        load.refused += 1
        self.timeline.refused(time.monotonic())

    def _fail(self, error: OSError) -> None:
        if self.error is None:
            when = "after" if self.signalled.is_set() else "before"
            place = f"{self.host}:{self.port}"
            self.error = SetupError(f"connecting to {place} {when} the signal: {error!r}")
            self.error.__cause__ = error
            self.until.cancel()

    # -- one request ----------------------------------------------------------------------------

    def request(self, endpoint: Endpoint, *, with_body: bool = True) -> Request:
        """Return the request for an endpoint, with the headers of the plan. Raises `CheckError`."""
        return Request.to(
            endpoint, authority=self.authority, headers=self.plan.headers, with_body=with_body
        )

    def plain_request(self, method: str, path: str, *headers: Header) -> Request:
        """Return a request whose right answer is not known. Raises `CheckError`."""
        return Request.make(
            method, path, authority=self.authority, headers=merged(headers, self.plan.headers)
        )

    async def exchange(
        self, load: LoadResult, connection: HttpConnection, request: Request
    ) -> Outcome:
        """Send a request of the load, wait for its answer as long as the plan says, count it."""
        written = self.send(load, connection, request)
        if isinstance(written, Unsent):
            return written
        outcome = await self.receive(connection, within=self.plan.answer_period)
        self.record(load, outcome, written, is_timed=True)
        return outcome

    def send(
        self, load: LoadResult, connection: HttpConnection, request: Request, *, copies: int = 1
    ) -> Written | Unsent:
        """Write a request, `copies` times; whoever calls this records an outcome for each.

        No await between the look at the connection, the write and the note of its side: the signal
        is sent by this same loop, so a request is on the side it was written on.
        """
        unsent = connection.send(request, copies=copies)
        if unsent is not None:
            load.record("after" if self.signalled.is_set() else "before", unsent)
            return unsent
        return self.note_written(
            copies=copies, since=None if connection.is_reused else connection.wanted_at
        )

    def note_written(self, *, copies: int = 1, since: float | None = None) -> Written:
        """Count requests as sent; called with no await after they were written.

        `since` is when their client began to wait, if that was before now (monotonic seconds).
        """
        now = time.monotonic()
        for _ in range(copies):
            self.timeline.written(now)
        return Written(not self.signalled.is_set(), now if since is None else since)

    async def receive(
        self, connection: HttpConnection, *, watch: Watch | None = None, within: float | None = None
    ) -> Complete | Lost:
        """Wait for the answer to a request; by default for as long as the run goes on."""
        with connection.give_up_after(within), self.waiting(connection):
            answer = await connection.receive(watch)
        return answer if isinstance(answer, Lost) else self.judge(answer, connection.request)

    def judge(self, answer: HttpAnswer, request: Request) -> Complete:
        """Return whether a complete answer is right, wrong, or a rejection."""
        status, reusable = answer.status, answer.reusable
        if status >= 500 and answer.retry_after and self.signalled.is_set():
            if self.plan.allow_reject:
                return Rejected(status, reusable)
            return Wrong(status, reusable, "rejected", shown(answer))
        fault = self._fault(answer, request)
        if fault is None:
            return Answered(status, reusable)
        return Wrong(status, reusable, fault, shown(answer))

    def _fault(self, answer: HttpAnswer, request: Request) -> str | None:
        expectation = self.expectations.get(request.endpoint) if request.endpoint else None
        if expectation is None:
            return f"status {answer.status}" if answer.status >= 500 else None
        fault = expectation.fault(answer)
        if fault is None or self.signalled.is_set() or request.endpoint is None:
            return fault
        if (wider := expectation.widened(answer)) is None:
            return fault
        self.expectations[request.endpoint] = wider
        return None

    @contextlib.contextmanager
    def waiting(self, connection: HttpConnection) -> Iterator[None]:
        """Wait for this connection in the block; at the end of the run the wait is ended.

        Blocks may nest: of several reads in one block, none is ended while another goes on.
        """
        if connection in self._waiting:
            yield
            return
        self._waiting.add(connection)
        try:
            yield
        finally:
            self._waiting.discard(connection)
            if self.over.is_set() and not self._waiting:
                self._none_waiting.set()

    def record(
        self, load: LoadResult, outcome: AnyOutcome, written: Written, *, is_timed: bool = False
    ) -> None:
        """Count the outcome of a request that `send` has written.

        `is_timed` is for requests that are all alike: the slowest of them says something.
        """
        now = time.monotonic()
        side = written.side_now(signalled=self.signalled.is_set())
        load.record(side, outcome, now - written.at if is_timed else 0.0)
        self.timeline.ended(
            now, answered=isinstance(outcome, Answered), failed=isinstance(outcome, Lost | Wrong)
        )
