"""Keep-alive: clients that stay on their connection and use it again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..result.counts import Complete
from .clients import Clients

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection, Request
    from ..client.run import Run
    from ..result.counts import Outcome


class KeepAlive(Clients):
    """Each looks whether the server has closed before it writes, as a good pool does.

    A request lost all the same is one that the server could have saved by saying
    `Connection: close` in the answer before it.
    """

    name = "keep-alive"

    def count(self) -> int:
        return self.plan.keep_alive_clients

    async def ask(self, run: Run, connection: HttpConnection, request: Request) -> Outcome:
        """Send one request and count what comes of it."""
        return await run.exchange(self.load, connection, request)

    async def client(self, run: Run, request: Request) -> None:
        connection: HttpConnection | None = None
        try:
            while not run.over.is_set():
                if connection is None or connection.is_stale():
                    if connection is not None:
                        connection.close()
                    connection = await run.connect(self.load)
                    if connection is None:
                        return
                outcome = await self.ask(run, connection, request)
                if not (isinstance(outcome, Complete) and outcome.reusable):
                    connection.close()
                    connection = None
                await self.think()
        finally:
            if connection is not None:
                connection.close()
