"""Event stream: a `text/event-stream` that runs when the signal comes, with no end of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h11

from ..load.scenario import since_signal
from ..result.counts import Answered, Lost
from ..result.finding import Exit, Finding
from .single import Single

if TYPE_CHECKING:
    from ..load.client import Connection
    from ..load.request import Request
    from ..load.run import Run

# A blank line ends an event (WHATWG HTML, 9.2.5); these are the ways to end a line twice.
_BLANK_LINES: Final = (b"\n\n", b"\r\r", b"\n\r\n")


class EventStream(Single):
    """Right: the body is ended after a whole event, so that the browser connects anew.

    A stream that goes on until the process dies is cut, and so is one that ends within an event.
    """

    name = "event stream"
    option = "--sse-path"
    advice = "it has to go on"
    _tail = b""
    _seconds = 0.0

    def path(self) -> str | None:
        return self.plan.event_stream_path

    def request(self, run: Run, path: str) -> Request:
        return run.request("GET", path, ("Accept", "text/event-stream"))

    async def answer(self, run: Run, connection: Connection) -> Answered | Lost:
        def watch(event: h11.Response | h11.Data) -> None:
            if isinstance(event, h11.Data):
                self._take(bytes(event.data))
            elif not _is_event_stream(event):
                self.not_run("the answer is no text/event-stream")
                connection.give_up()

        outcome = await run.receive(connection, watch=watch)
        self._seconds = since_signal(run)
        if self.is_left_out:
            return Answered(200, reusable=False)  # not what we came for, and left by us
        if isinstance(outcome, Answered) and self._tail and not self._is_whole:
            return Lost("cut body", reused=False)
        return outcome

    def _take(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-3:]
        if self._is_whole:
            self.in_position.set()

    @property
    def _is_whole(self) -> bool:
        return self._tail.endswith(_BLANK_LINES)

    def judge(self, end: Exit) -> Finding:
        finding = super().judge(end)
        if finding.failed:
            return finding
        return Finding(self.name, "passed", "ended whole", finding.load, self._seconds)


def _is_event_stream(head: h11.Response) -> bool:
    """An answer that is none is a success of another kind: an error is judged by its status."""
    kind = dict(head.headers).get(b"content-type", b"")
    return head.status_code != 200 or kind.startswith(b"text/event-stream")
