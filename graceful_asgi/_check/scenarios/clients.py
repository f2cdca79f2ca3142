"""What keep-alive and fresh-connection clients share: how many there are, how they are judged."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from typing import TYPE_CHECKING

import anyio

from ..finding import Exit, Finding, is_faultless
from .scenario import Scenario

if TYPE_CHECKING:
    from ..request import Request
    from ..stage import Stage


class Clients(Scenario):
    """Many clients that do the same, for as long as the server lets them."""

    @abstractmethod
    def count(self) -> int:
        """How many."""

    @abstractmethod
    async def client(self, stage: Stage, request: Request) -> None:
        """One of them."""

    async def run(self, stage: Stage) -> None:
        self.in_position.set()
        if not self.count():
            self.not_run("no such clients in the load")
        request = stage.request("GET", self.plan.path)
        async with anyio.create_task_group() as group:
            for _ in range(self.count()):
                group.start_soon(self.client, stage, request)

    async def think(self) -> None:
        """Pause as a client does between two requests."""
        await asyncio.sleep(random.uniform(0, self.plan.think_period))

    def judge(self, end: Exit) -> Finding:
        load = self.ledger.result()
        return Finding(self.name, "passed" if is_faultless(load) else "failed", load=load)
