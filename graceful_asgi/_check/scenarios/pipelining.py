"""Pipelining: a client that writes its next requests before it has the answer to the first."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..counts import Answered, AnyOutcome, Retryable, Unsent
from .clients import Clients

if TYPE_CHECKING:
    from ..client import Connection
    from ..request import Request
    from ..stage import Stage

_DEPTH: Final = 4


class Pipelining(Clients):
    """Right: each request is answered, or stands behind an answer that said `Connection: close`.

    Those may be sent again, whatever their method: a server that has said so will not look at them
    (RFC 9112, 9.3.2 and 9.6). They are counted, and are not lost.
    """

    name = "pipelining"

    def count(self) -> int:
        return 1

    async def client(self, stage: Stage, request: Request) -> None:
        while not stage.over.is_set():
            connection = await stage.connect(self.ledger)
            if connection is None:
                return
            with closing(connection):
                while not stage.over.is_set() and not connection.is_stale():
                    if not await self._batch(stage, connection, request):
                        break
                    await self.think()
            if not stage.signalled.is_set():
                return self.not_run("the server keeps no connection alive")

    async def _batch(self, stage: Stage, connection: Connection, request: Request) -> bool:
        """Write a batch and read its answers; whether another may follow on this connection."""
        written = stage.send(self.ledger, connection, request, copies=_DEPTH)
        if isinstance(written, Unsent):
            return False
        going_on = True
        with stage.waiting(connection):
            for _ in range(_DEPTH):
                outcome: AnyOutcome = Retryable()
                if going_on:
                    outcome = await stage.receive(connection, within=self.plan.answer_period)
                    going_on = not isinstance(outcome, Answered) or outcome.reusable
                stage.record(self.ledger, outcome, written)
        return going_on and isinstance(outcome, Answered)
