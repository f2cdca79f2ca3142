"""What scenarios with one request share: it is to be in flight at the signal, and then answered."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar

from ..load.scenario import Scenario
from ..result.counts import Answered, Lost, Outcome, Unsent
from ..result.finding import Exit, Finding, describe

if TYPE_CHECKING:
    from ..load.client import Connection
    from ..load.request import Request
    from ..load.run import Run


class Single(Scenario):
    """Right: a complete answer, and no 5xx."""

    option: ClassVar[str]
    """What names the path on the command line."""
    advice: ClassVar[str]
    """What the path has to do, so that its answer does not come before the signal."""
    outcome: Outcome | None = None

    @abstractmethod
    def path(self) -> str | None:
        """Where the request goes; None: it is not in the plan."""

    def request(self, run: Run, path: str) -> Request:
        """What is written, but for a body."""
        return run.request("GET", path)

    @abstractmethod
    async def answer(self, run: Run, connection: Connection) -> Answered | Lost:
        """See to it that the request gets in position, and wait for its answer."""

    async def carry_out(self, run: Run) -> None:
        path = self.path()
        if path is None:
            return self.not_run(f"needs {self.option}")
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        with closing(connection):
            written = run.send(self.counter, connection, self.request(run, path))
            if isinstance(written, Unsent):
                self.outcome = written
                return
            outcome = await self.answer(run, connection)
            run.record(self.counter, outcome, written)
        if isinstance(outcome, Answered) and not run.signalled.is_set():
            return self.not_run(f"answered {outcome.status} before the signal: {self.advice}")
        self.outcome = outcome

    def judge(self, end: Exit) -> Finding:
        load = self.counter.result()
        complete = isinstance(self.outcome, Answered) and not load.total.failed
        return Finding(self.name, "passed" if complete else "failed", describe(self.outcome), load)
