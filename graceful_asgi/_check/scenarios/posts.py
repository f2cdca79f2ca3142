"""POST: clients that send bodies on connections that they keep."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from ..result.counts import Outcome, Unsent
from .keep_alive import KeepAlive

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection, Request
    from ..client.plan import LoadPlan
    from ..client.run import Run

_MOST: Final = 20
_PAUSE: Final = 0.005
"""Seconds between head and body, in every second request. Many clients write the two apart, and a
server that closes in between has read half a request."""


class Posts(KeepAlive):
    """Right: each is answered. A client may not send one again that got no answer.

    It cannot know whether the server has acted on it (RFC 9110, 9.2.2).
    """

    name = "POST"
    option = "--post-path"

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self._in_two = False

    def count(self) -> int:
        return min(_MOST, self.plan.keep_alive_clients) or 1

    async def ask(self, run: Run, connection: HttpConnection, request: Request) -> Outcome:
        self._in_two = not self._in_two
        endpoint = self.endpoint
        if not (self._in_two and endpoint.body):
            return await super().ask(run, connection, request)
        head = run.request(endpoint, with_body=False)
        written = run.send(self.load, connection, head)
        if isinstance(written, Unsent):
            return written
        # One wait from the head on: a run that ends in the pause waits for the outcome as well.
        with run.waiting(connection):
            await asyncio.sleep(_PAUSE)
            with contextlib.suppress(OSError):  # whether it was answered all the same is read below
                await connection.write(endpoint.body)
            outcome = await run.receive(connection, within=self.plan.answer_period)
        run.record(self.load, outcome, written)
        return outcome
