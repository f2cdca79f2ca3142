"""Slow request: one that the server is working on when the signal comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .single import Single

if TYPE_CHECKING:
    from ..load.client import Connection
    from ..load.run import Run
    from ..result.counts import Answered, Lost


class Slow(Single):
    """Right: a complete answer."""

    name = "slow request"
    option = "--slow-path"
    advice = "it has to take longer"

    def path(self) -> str | None:
        return self.plan.slow_path

    async def answer(self, run: Run, connection: Connection) -> Answered | Lost:
        self.in_position.set()
        return await run.receive(connection)
