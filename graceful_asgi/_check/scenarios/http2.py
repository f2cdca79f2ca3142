"""HTTP/2: many requests at a time on a few connections, where the server speaks it without TLS."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Final

import anyio

from ..client.http1 import merged
from ..client.http2 import LONGEST_BODY, Http2Client, speaks_http2
from ..errors import PathError
from ..result.counts import Answered, AnyOutcome, Lost, Retryable, Unsent
from .clients import Clients

if TYPE_CHECKING:
    from ..client.http1 import Request
    from ..client.run import Run

_CONNECTIONS: Final = 3
_STREAMS: Final = 4
"""Streams in flight on each connection. So it is never idle, and has to get a GOAWAY."""
_FIRST_FRAME_PERIOD: Final = 1.0


class Http2(Clients):
    """Right: each request is answered, or the server has said that it has not looked at it.

    It says so with a GOAWAY that names the last stream it takes, or by refusing a stream (RFC 9113,
    6.8 and 8.7). Those may be sent again; they are counted, and are not lost.
    """

    name = "HTTP/2"

    def count(self) -> int:
        return _CONNECTIONS if self.plan.keep_alive_clients else 0

    async def prepare(self, run: Run) -> None:
        if len(self.endpoint.body) > LONGEST_BODY:
            return self.not_run(f"its client sends no body of more than {LONGEST_BODY:,} bytes")
        try:
            connection = await run.connect_before_load(self.name, within=_FIRST_FRAME_PERIOD)
        except PathError:
            return self.not_run("no connection before the load")
        with closing(connection):
            if not await speaks_http2(connection, within=_FIRST_FRAME_PERIOD):
                self.not_run("the server does not speak it without TLS")

    async def client(self, run: Run, request: Request) -> None:
        while (connection := await self.connect(run)) is not None:
            with closing(connection), run.waiting(connection):
                http2 = Http2Client(connection)
                if http2.begin() is not None:
                    continue
                async with anyio.create_task_group() as group:
                    group.start_soon(http2.read)
                    async with anyio.create_task_group() as streams:
                        for _ in range(_STREAMS):
                            streams.start_soon(self._stream, run, http2, request)
                    group.cancel_scope.cancel()

    async def _stream(self, run: Run, http2: Http2Client, request: Request) -> None:
        """Send one request after the other, until the connection is to be left."""
        endpoint = self.endpoint
        while await http2.has_room(len(endpoint.body)) and not run.over.is_set():
            headers = merged(endpoint.headers, self.plan.headers)
            sent = http2.send(endpoint, headers, run.authority)
            if isinstance(sent, Unsent):
                return
            written = run.note_written()
            found = await http2.receive(sent, within=self.plan.answer_period)
            outcome: AnyOutcome = (
                found if isinstance(found, Lost | Retryable) else run.judge(found, request)
            )
            run.record(self.load, outcome, written)
            if not isinstance(outcome, Answered):
                await asyncio.sleep(self.plan.think_period)
            await self.think()
