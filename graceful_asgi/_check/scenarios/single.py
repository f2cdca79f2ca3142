"""Shared by scenarios with one request in flight at the signal, and more of the same after it."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING

import anyio

from ..result.counts import Answered, Complete, Lost, Outcome, Rejected, Unsent
from ..result.finding import Exit, Finding, is_faultless, load_text, outcome_text
from .base import Scenario

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection, Request
    from ..client.run import Run


class Single(Scenario):
    """Right: the complete and right answer.

    An answer that comes before the signal shows nothing, so the request is sent again, until the
    signal finds one in flight. From the signal on another client sends the same on new connections
    until they are refused: a server may finish what it has begun, and answer the next with a lie.
    """

    outcome: Outcome | None = None

    def request(self, run: Run) -> Request:
        """Return what is written at once."""
        return run.request(self.endpoint)

    @abstractmethod
    async def answer(self, run: Run, connection: HttpConnection) -> Complete | Lost:
        """Get the request in position, and wait for its answer."""

    def goes_on(self) -> bool:
        """Return True if an answer before the signal is only too early: another is asked for."""
        return True

    async def carry_out(self, run: Run) -> None:
        request = self.request(run)
        async with anyio.create_task_group() as group:
            if self.plan.fresh_clients:
                group.start_soon(self._ask_after_signal, run, request)
            await self._ask_until_signal(run, request)
            if self.is_left_out:
                group.cancel_scope.cancel()

    async def _ask_after_signal(self, run: Run, request: Request) -> None:
        await run.signalled.wait()
        while (connection := await run.connect(self.load)) is not None:
            await self._ask(run, connection, request)
            await self.think()

    async def _ask_until_signal(self, run: Run, request: Request) -> None:
        await run.poised.wait()
        is_early = True
        while is_early:
            connection = await run.connect(self.load)
            if connection is None:
                return self.not_run("no connection before the signal")
            outcome = await self._ask(run, connection, request)
            is_early = not isinstance(outcome, Unsent) and not run.signalled.is_set()
            is_early = is_early and self.goes_on() and isinstance(outcome, Answered)
        self.outcome = outcome

    async def _ask(self, run: Run, connection: HttpConnection, request: Request) -> Outcome:
        """Send the request, and count what comes of it."""
        with closing(connection):
            written = run.send(self.load, connection, request)
            if isinstance(written, Unsent):
                return written
            outcome = await self.answer(run, connection)
            run.record(self.load, outcome, written)
        return outcome

    def judge(self, end: Exit) -> Finding:
        if not isinstance(self.outcome, Answered | Rejected):
            return Finding(self.name, "failed", outcome_text(self.outcome), self.load)
        if not is_faultless(self.load):
            return Finding(self.name, "failed", load_text(self.load), self.load)
        return Finding(self.name, "passed", outcome_text(self.outcome), self.load)
