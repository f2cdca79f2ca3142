"""Slow request: one that the server is working on when the signal comes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from graceful_asgi.check.finding import Exit, Finding, from_outcome
from graceful_asgi.check.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from graceful_asgi.check.counts import Outcome
    from graceful_asgi.check.stage import Stage


class Slow(Scenario):
    """Right: a complete answer."""

    name = "slow request"
    _outcome: Outcome | None = None

    async def run(self, stage: Stage) -> None:
        if self.plan.slow_path is None:
            return self.not_run("needs --slow-path")
        await stage.poised.wait()
        connection = await self.connect(stage)
        if connection is None:
            return
        with closing(connection):
            request = stage.request("GET", self.plan.slow_path)
            unsent = stage.send(self.ledger, connection, request)
            self.in_position.set()
            outcome = unsent or await stage.receive(connection)
            if not self.answered_early(stage, outcome, "it has to take longer"):
                self._outcome = outcome
            if unsent is None:
                stage.record(self.ledger, outcome, written_before=True)

    def judge(self, end: Exit) -> Finding:
        return from_outcome(self.name, self._outcome, self.ledger.result())
