"""Half a request head: a client that has begun a request and does not go on."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

from ..result.finding import Exit, Finding
from .base import Scenario

if TYPE_CHECKING:
    from ..client.run import Run


class HalfHead(Scenario):
    """Right: the server does not wait for it for ever; with an answer (408) or without.

    Not a lost request: it was not written in full. Wrong: open when the server has to be killed.
    """

    name = "half a request head"
    learns = False  # whatever it is answered is right
    _answer = b""
    _seconds: float | None = None

    async def carry_out(self, run: Run) -> None:
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        with closing(connection):
            head = run.request(self.endpoint).data
            with suppress(OSError):  # closed already: that is read below
                await connection.write(head[: head.index(b"\r\n") + 10])
            self._answer, self._seconds = await self.read_to_end(run, connection)

    def judge(self, end: Exit) -> Finding:
        if self._seconds is None:
            return Finding(self.name, "failed", "open until the kill")
        status = self._answer.split(b" ", 2)[1:2]
        detail = f"answered {status[0].decode('latin-1')}, closed" if status else "closed"
        return Finding(self.name, "passed", detail, seconds=self._seconds)
