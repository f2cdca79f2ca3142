"""Event stream: a `text/event-stream` that runs when the signal comes, with no end of its own."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import h11

from graceful_asgi.check.counts import Answered, Lost, Outcome
from graceful_asgi.check.finding import Exit, Finding, describe
from graceful_asgi.check.scenarios.scenario import Scenario, since_signal

if TYPE_CHECKING:
    from graceful_asgi.check.client import Connection
    from graceful_asgi.check.stage import Stage

# A blank line ends an event (WHATWG HTML, 9.2.5); these are the ways to end a line twice.
_BLANK_LINES: Final = (b"\n\n", b"\r\r", b"\n\r\n")


class EventStream(Scenario):
    """Right: the body is ended after a whole event, so that the browser connects anew.

    A stream that goes on until the process dies is cut, and so is one that ends within an event.
    """

    name = "event stream"
    _outcome: Outcome | None = None
    _tail = b""
    _seconds = 0.0
    _connection: Connection | None = None

    async def run(self, stage: Stage) -> None:
        if self.plan.event_stream_path is None:
            return self.not_run("needs --sse-path")
        await stage.poised.wait()
        self._connection = await self.connect(stage)
        if self._connection is None:
            return
        accept = ("Accept", "text/event-stream")
        request = stage.request("GET", self.plan.event_stream_path, accept)
        with closing(self._connection):
            unsent = stage.send(self.ledger, self._connection, request)
            outcome = unsent or self._whole(
                await stage.receive(self._connection, watch=self._watch)
            )
            self._seconds = since_signal(stage)
            if not self.answered_early(stage, outcome, "it has to go on"):
                self._outcome = outcome
            if unsent is None:
                stage.record(self.ledger, outcome, written_before=True)

    def _watch(self, event: h11.Response | h11.Data) -> None:
        if isinstance(event, h11.Response):
            kind = dict(event.headers).get(b"content-type", b"").decode("latin-1")
            if event.status_code == 200 and not kind.startswith("text/event-stream"):
                self.not_run(f"the answer is {kind or 'of no type'}, not text/event-stream")
                if self._connection is not None:
                    self._connection.give_up()
        else:
            self._tail = (self._tail + bytes(event.data))[-3:]
            if self._tail.endswith(_BLANK_LINES):
                self.in_position.set()

    def _whole(self, outcome: Answered | Lost) -> Answered | Lost:
        if self._reason:
            return Answered(200, reusable=False)  # not what we came for, and left by us
        if isinstance(outcome, Answered) and self._tail and not self._tail.endswith(_BLANK_LINES):
            return Lost("cut body", reused=False)
        return outcome

    def judge(self, end: Exit) -> Finding:
        load = self.ledger.result()
        if isinstance(self._outcome, Answered) and not load.total.failed:
            return Finding(self.name, "passed", "ended whole", load, self._seconds)
        return Finding(self.name, "failed", describe(self._outcome), load)
