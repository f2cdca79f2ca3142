"""Half a request head: a client that has begun a request and does not go on."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from ..load.scenario import Scenario, since_signal
from ..result.finding import Exit, Finding

if TYPE_CHECKING:
    from ..load.run import Run


class HalfHead(Scenario):
    """Right: the server does not wait for it for ever; with an answer (408) or without.

    Not a lost request: it was not written in full. Wrong: open when the server has to be killed.
    """

    name = "half a request head"
    _seconds: float | None = None
    _answer = b""

    async def carry_out(self, run: Run) -> None:
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        with closing(connection):
            head = run.request(self.plan.load).data
            try:
                await connection.write(head[: head.index(b"\r\n") + 10])
                self.in_position.set()
                with run.waiting(connection):
                    while data := await connection.read():
                        self._answer += data
            except TimeoutError:  # still open at the end of the run
                return
            except OSError:  # a reset is an end as well
                pass
            if not run.signalled.is_set():
                return self.not_run("closed before the signal")
            self._seconds = since_signal(run)

    def judge(self, end: Exit) -> Finding:
        if self._seconds is None:
            return Finding(self.name, "failed", "open until the kill")
        status = self._answer.split(b" ", 2)[1:2]
        detail = f"answered {status[0].decode('latin-1')}, closed" if status else "closed"
        return Finding(self.name, "passed", detail, seconds=self._seconds)
