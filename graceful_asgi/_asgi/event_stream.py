"""`EventStream`: finds the boundaries between the events of a `text/event-stream` response. Pure.

If such a stream ends between two events, with a complete body, a browser has lost nothing: its
EventSource connects again and sends the id of the last event (WHATWG HTML, section 9.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..types import Message, Scope

_MIDDLE: Final = b"?"
"""A tail that means: in the middle of an event."""


class EventStream:
    """The events of one response, as the app sends them.

    Args:
        tail: the end of what was sent before. By default nothing was: no event is half out.
    """

    __slots__ = ("_passing", "_tail")

    def __init__(self, tail: bytes = b"\n\n") -> None:
        self._tail = tail
        self._passing = 0

    @property
    def between_events(self) -> bool:
        """True while only whole events have been sent, and nothing is being sent."""
        return not self._passing and _ends_event(self._tail)

    def begins(self, chunk: bytes) -> bytes:
        """Note that *chunk* is being sent; return the tail that `passed` takes when it has been."""
        # With two chunks on their way nobody knows which comes first: look at this one alone.
        before = b"" if self._passing else self._tail
        self._passing += 1
        return (before + bytes(chunk[-4:]))[-4:]

    def passed(self, tail: bytes) -> None:
        """Note that the chunk that *tail* belongs to has been sent."""
        self._passing -= 1
        self._tail = tail

    def failed(self, tail: bytes) -> None:
        """Note that sending was cancelled or raised: the chunk may have been sent, or not."""
        self._passing -= 1
        if not (_ends_event(self._tail) and _ends_event(tail)):
            self._tail = _MIDDLE


def is_event_stream(start: Message) -> bool:
    """Return True if a response that starts like this may end between any two of its events.

    False for a response with a length, which would be cut short. False for an encoded response:
    its events cannot be seen, and the encoding has an end of its own.
    """
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return media_type == b"text/event-stream" and not (
        b"content-length" in headers or b"content-encoding" in headers
    )


def reconnects(scope: Scope) -> bool:
    """Return True for a request whose client connects again when the event stream ends.

    An EventSource sends GET and `Accept: text/event-stream`, and comes back by itself (WHATWG
    HTML, section 9.2). From its revision of 2026-07-28 on MCP listens with a POST, which says so in
    `Mcp-Method`. Its end is an answer only with a JSON-RPC result in it; without one the client
    listens again. The client of any other request takes the end of the body for the end of its
    answer: OpenAI's returns what it has got.
    """
    if scope["method"] == "GET":
        return any(
            name == b"accept" and b"text/event-stream" in value.lower()
            for name, value in scope["headers"]
        )
    return any(
        name == b"mcp-method" and value == b"subscriptions/listen"
        for name, value in scope["headers"]
    )


def _ends_event(tail: bytes) -> bool:
    # Lines end in CR LF, LF or CR; an empty one ends an event.
    return tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n")
