"""Hung handler: a request that is never answered. A server run of its own: is the deadline kept?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from ..load.scenario import Scenario
from ..result.finding import Exit, Finding, describe

if TYPE_CHECKING:
    from ..load.run import Run


class Hung(Scenario):
    """Right: the process is gone by the deadline, whatever the client of the hung request gets."""

    name = "hung handler"

    async def carry_out(self, run: Run) -> None:
        if self.plan.hang_path is None:
            return self.not_run("needs --hang-path")
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        with closing(connection):
            # Not counted: nobody can answer this one, so no server is to be blamed for losing it.
            unsent = connection.send(run.request("GET", self.plan.hang_path))
            self.in_position.set()
            if unsent is None:
                outcome = await run.receive(connection)
            if not run.signalled.is_set():
                self.not_run(f"{describe(unsent or outcome)} before the signal: it has to hang")

    def judge(self, end: Exit) -> Finding:
        if end.in_time:
            return Finding(self.name, "passed", "gone", seconds=end.seconds)
        return Finding(self.name, "failed", "still there", seconds=end.seconds)
