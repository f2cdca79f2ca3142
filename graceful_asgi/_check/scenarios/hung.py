"""Hung handler: a request that is never answered. A server run of its own: is the deadline kept?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from ..client.expectation import shown
from ..result.counts import Lost
from ..result.finding import Exit, Finding, Result, outcome_text
from .base import Scenario

if TYPE_CHECKING:
    from ..client.run import Run


class Hung(Scenario):
    """Right: the process is gone by the deadline, whatever the client of the hung request gets."""

    name = "hung handler"
    option = "--hang-path"
    learns = False  # there is no answer

    async def carry_out(self, run: Run) -> None:
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        with closing(connection):
            # Not counted: nobody can answer this one, so no server is to be blamed for losing it.
            unsent = connection.send(run.request(self.endpoint))
            self.in_position.set()
            if unsent is not None:
                return self.not_run(outcome_text(unsent))
            with run.waiting(connection):
                answer = await connection.receive()
            if not run.signalled.is_set():
                what = outcome_text(answer) if isinstance(answer, Lost) else shown(answer)
                self.not_run(f"answered before the signal ({what}): it has to hang")

    def judge(self, end: Exit) -> Finding:
        result: Result = "passed" if end.in_time else "failed"
        text = "gone" if end.in_time else "still there"
        return Finding(self.name, result, text, seconds=end.seconds)
