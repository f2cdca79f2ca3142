"""What keep-alive and fresh-connection clients share: how many there are, how they are judged."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from typing import TYPE_CHECKING

import anyio

from ..load.scenario import Scenario
from ..result.finding import Exit, Finding, is_faultless

if TYPE_CHECKING:
    from ..load.request import Request
    from ..load.run import Run


class Clients(Scenario):
    """Many clients that do the same, for as long as the server lets them."""

    @abstractmethod
    def count(self) -> int:
        """How many."""

    @abstractmethod
    async def client(self, run: Run, request: Request) -> None:
        """One of them."""

    async def carry_out(self, run: Run) -> None:
        self.in_position.set()
        if not self.count():
            self.not_run("no such clients in the load")
        request = run.request("GET", self.plan.path)
        async with anyio.create_task_group() as group:
            for _ in range(self.count()):
                group.start_soon(self.client, run, request)

    async def think(self) -> None:
        """Pause as a client does between two requests."""
        await asyncio.sleep(random.uniform(0, self.plan.think_period))

    def judge(self, end: Exit) -> Finding:
        load = self.counter.result()
        return Finding(self.name, "passed" if is_faultless(load) else "failed", load=load)
