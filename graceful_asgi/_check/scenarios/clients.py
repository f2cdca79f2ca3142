"""Many clients that do the same: how many there are, and how they are judged."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import anyio

from ..result.finding import Exit, Finding, is_faultless
from .base import Scenario

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection, Request
    from ..client.plan import LoadPlan
    from ..client.run import Run


class Clients(Scenario):
    """Many clients that do the same, for as long as the server lets them."""

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self.learns = bool(self.count())

    @abstractmethod
    def count(self) -> int:
        """Return how many."""

    @abstractmethod
    async def client(self, run: Run, request: Request) -> None:
        """Send requests as one of them does."""

    async def connect(self, run: Run) -> HttpConnection | None:
        """Connect, and return None when this client is to stop: refused, or the run is over."""
        return None if run.over.is_set() else await run.connect(self.load)

    async def carry_out(self, run: Run) -> None:
        self.in_position.set()
        if not self.count():
            return self.not_run("no such clients in the load")
        request = run.request(self.endpoint)
        async with anyio.create_task_group() as group:
            for _ in range(self.count()):
                group.start_soon(self.client, run, request)

    def judge(self, end: Exit) -> Finding:
        return Finding(self.name, "passed" if is_faultless(self.load) else "failed", load=self.load)
