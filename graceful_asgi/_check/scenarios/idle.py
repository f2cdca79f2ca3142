"""Idle connection: kept alive after its last answer, and not used again."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from ..result.counts import Complete
from ..result.finding import Exit, Finding
from .base import Scenario

if TYPE_CHECKING:
    from ..client.run import Run


class Idle(Scenario):
    """Right: it is closed. Nothing was asked on it, so nothing can be lost with it.

    Wrong: it is still open when the server has to be killed.
    """

    name = "idle connection"
    _seconds: float | None = None

    async def carry_out(self, run: Run) -> None:
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        with closing(connection):
            request = run.request(self.endpoint)
            outcome = await run.exchange(self.load, connection, request)
            if not (isinstance(outcome, Complete) and outcome.reusable):
                return self.not_run("the server keeps no connection alive")
            _, self._seconds = await self.read_to_end(run, connection)

    def judge(self, end: Exit) -> Finding:
        if self._seconds is None:
            return Finding(self.name, "failed", "open until the kill", self.load)
        return Finding(self.name, "passed", "closed", self.load, self._seconds)
