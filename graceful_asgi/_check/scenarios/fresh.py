"""Fresh connections: clients that open one for each request."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from .clients import Clients

if TYPE_CHECKING:
    from ..client.http1 import Request
    from ..client.run import Run


class Fresh(Clients):
    """A request lost here was on a connection that the server's kernel had accepted for it.

    A connection that is refused is not lost: nothing was written, and the client may go elsewhere.
    """

    name = "fresh connections"

    def count(self) -> int:
        return self.plan.fresh_clients

    async def client(self, run: Run, request: Request) -> None:
        while (connection := await self.connect(run)) is not None:
            with closing(connection):
                await run.exchange(self.load, connection, request)
            await self.think()
