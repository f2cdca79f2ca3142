"""Pipelining: a client that writes its next requests before it has the answer to the first."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..result.counts import AnyOutcome, Complete, Retryable, Unsent
from .clients import Clients

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection, Request
    from ..client.run import Run

_DEPTH: Final = 4


class Pipelining(Clients):
    """Right: each request is answered, or stands behind an answer that said `Connection: close`.

    Those may be sent again, whatever their method: a server that has said so will not look at them
    (RFC 9112, 9.3.2 and 9.6). They are counted, and are not lost.
    """

    name = "pipelining"

    def count(self) -> int:
        return 1

    async def carry_out(self, run: Run) -> None:
        if self.endpoint.method != "GET":
            self.in_position.set()
            return self.not_run(f"a {self.endpoint.method} is not pipelined (RFC 9112, 9.3.2)")
        await super().carry_out(run)

    async def client(self, run: Run, request: Request) -> None:
        while (connection := await self.connect(run)) is not None:
            is_kept = False
            with closing(connection):
                while not run.over.is_set() and not connection.is_stale():
                    if not await self._batch(run, connection, request):
                        break
                    is_kept = True  # a server may end it later, after so many requests
                    await self.think()
            if not (is_kept or run.signalled.is_set()):
                return self.not_run("the server keeps no connection alive")

    async def _batch(self, run: Run, connection: HttpConnection, request: Request) -> bool:
        """Write a batch and read its answers. Return True if another may follow it."""
        written = run.send(self.load, connection, request, copies=_DEPTH)
        if isinstance(written, Unsent):
            return False
        going_on = True
        with run.waiting(connection):
            for _ in range(_DEPTH):
                outcome: AnyOutcome = Retryable()
                if going_on:
                    outcome = await run.receive(connection, within=self.plan.answer_period)
                    going_on = not isinstance(outcome, Complete) or outcome.reusable
                run.record(self.load, outcome, written)
        return going_on and isinstance(outcome, Complete)
