"""Event stream: a `text/event-stream` that runs when the signal comes, with no end of its own."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..client.expectation import shown
from ..errors import PathError
from ..result.counts import Answered, Complete, Lost, Unsent, Wrong
from ..result.finding import Exit, Finding
from .base import since_signal
from .single import Single

if TYPE_CHECKING:
    from ..client.answer import HttpAnswer
    from ..client.http1 import HttpConnection
    from ..client.run import Run

_FIRST_EVENT_PERIOD: Final = 5.0
# A blank line ends an event (WHATWG HTML, 9.2.5); these are the ways to end a line twice.
_BLANK_LINES: Final = (b"\n\n", b"\r\r", b"\n\r\n")


class EventEnds:
    """Follows the text of an event stream, and knows whether it stands between two events."""

    def __init__(self) -> None:
        self._tail = b""

    def add(self, data: bytes) -> None:
        """Take the next piece of the text."""
        self._tail = (self._tail + data)[-3:]

    @property
    def any(self) -> bool:
        """Return True if there has been any text."""
        return bool(self._tail)

    @property
    def has_event(self) -> bool:
        """Return True if the text so far ends in a whole event."""
        return self._tail.endswith(_BLANK_LINES)

    @property
    def is_whole(self) -> bool:
        """Return True if no event has begun that has not ended."""
        return not self._tail or self.has_event


class GetEventStream(Single):
    """Right: the body is ended after a whole event, so that the browser connects anew.

    A stream that goes on until the process dies is cut, and so is one that ends within an event.
    """

    name = "event stream"
    option = "--sse-path"
    learns = False  # it has no end, so there is no whole answer to learn
    _seconds = 0.0

    async def prepare(self, run: Run) -> None:
        named, period = self.endpoint.named, _FIRST_EVENT_PERIOD
        connection = await run.connect_before_load(named, within=period)
        events = EventEnds()

        def watch(piece: bytes) -> None:
            events.add(piece)
            if events.has_event or not _is_right(connection.head):
                connection.give_up()

        with closing(connection), connection.give_up_after(period):
            unsent = connection.send(run.request(self.endpoint))
            outcome = unsent or await connection.receive(watch)
        head = connection.head
        if head is not None and not _is_right(head):
            came = head if isinstance(outcome, Lost | Unsent) else outcome
            raise PathError(f"{named} answered {shown(came)}, which is no text/event-stream")
        if not events.has_event:
            raise PathError(f"{named} sent no event in {period:g} s")

    async def answer(self, run: Run, connection: HttpConnection) -> Complete | Lost:
        events = EventEnds()
        is_late = run.signalled.is_set()

        def watch(piece: bytes) -> None:
            events.add(piece)
            if events.has_event:
                self.in_position.set()

        outcome = await run.receive(connection, watch=watch)
        if not is_late:
            self._seconds = since_signal(run)
        if not isinstance(outcome, Answered):
            return outcome
        if not _is_right(connection.head):
            return Wrong(outcome.status, False, _other_than_events(outcome.status))
        # One asked for after the signal may be ended before its first event: the browser asks anew.
        if not events.any and not is_late:
            return Wrong(outcome.status, False, "empty body", "the stream ended without an event")
        if not events.is_whole:
            return Wrong(outcome.status, False, "half an event", "the stream ended within an event")
        return outcome

    def judge(self, end: Exit) -> Finding:
        finding = super().judge(end)
        if finding.failed:
            return finding
        return Finding(self.name, "passed", "ended whole", finding.load, self._seconds)


def _is_right(head: HttpAnswer | None) -> bool:
    return head is not None and head.status == 200 and head.is_event_stream


def _other_than_events(status: int) -> str:
    return "another type" if status == 200 else f"status {status}"
