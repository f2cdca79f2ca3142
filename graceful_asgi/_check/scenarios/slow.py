"""Slow request: one that the server is working on when the signal comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .single import Single

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection
    from ..client.run import Run
    from ..result.counts import Complete, Lost


class Slow(Single):
    """Right: a complete answer."""

    name = "slow request"
    option = "--slow-path"

    async def answer(self, run: Run, connection: HttpConnection) -> Complete | Lost:
        self.in_position.set()
        return await run.receive(connection)
