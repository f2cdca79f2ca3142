"""Hung handler: a request that is never answered. A server run of its own: is the deadline kept?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from graceful_asgi.check.finding import Exit, Finding
from graceful_asgi.check.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from graceful_asgi.check.counts import Outcome
    from graceful_asgi.check.stage import Stage


class Hung(Scenario):
    """Right: the process is gone by the deadline, whatever the client of the hung request gets."""

    name = "hung handler"
    _outcome: Outcome | None = None

    async def run(self, stage: Stage) -> None:
        if self.plan.hang_path is None:
            return self.not_run("needs --hang-path")
        await stage.poised.wait()
        connection = await self.connect(stage)
        if connection is None:
            return
        with closing(connection):
            # Not counted: nobody can answer this one, so no server is to be blamed for losing it.
            unsent = connection.send(stage.request("GET", self.plan.hang_path))
            self.in_position.set()
            outcome = unsent or await stage.receive(connection)
            if not self.answered_early(stage, outcome, "it has to hang"):
                self._outcome = outcome

    def judge(self, end: Exit) -> Finding:
        if end.in_time:
            return Finding(self.name, "passed", "gone", seconds=end.seconds)
        return Finding(self.name, "failed", "still there", seconds=end.seconds)
