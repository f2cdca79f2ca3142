"""Connection storm: from the signal on, connections are opened as fast as they come."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from .clients import Clients

if TYPE_CHECKING:
    from ..client.http1 import Request
    from ..client.plan import LoadPlan
    from ..client.run import Run

_CLIENTS: Final = 20
_MOST: Final = 8_000
"""Connections. Each one leaves a port of ours in TIME_WAIT for a minute, of some 28,000."""


class Storm(Clients):
    """Right: each request on a connection that was accepted is answered.

    The instant at which a server closes its listener is not known to a client, so that new
    connections come at every instant. Every second client waits a moment before it writes, as one
    does that is further away: a connection may be accepted and have no request yet when the
    listener is closed.
    """

    name = "connection storm"

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self._opened = 0

    def count(self) -> int:
        return min(_CLIENTS, self.plan.fresh_clients)

    async def client(self, run: Run, request: Request) -> None:
        await run.signalled.wait()
        waits = False
        while (connection := await self.connect(run)) is not None:
            self._opened += 1
            waits = not waits
            with closing(connection):
                if waits:
                    await self.think()
                # A connection that the server has closed before a request was written costs none:
                # the client sees the end, and opens another connection.
                if not (connection.is_stale() or run.over.is_set()):
                    await run.exchange(self.load, connection, request)
            if self._opened > _MOST:
                await self.think()
