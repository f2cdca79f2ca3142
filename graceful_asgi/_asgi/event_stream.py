"""Where a `text/event-stream` response stands: between two events, or in the midst of one. Pure.

A browser that sees such a stream end between two events, with a complete body, has lost nothing:
its EventSource connects again and says which event it saw last (WHATWG HTML, section 9.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..types import Message, Scope

_MIDDLE: Final = b"?"
"""A tail that stands for the midst of an event."""


class EventStream:
    """One response's events as they pass."""

    __slots__ = ("_passing", "_tail")

    def __init__(self) -> None:
        self._tail = b"\n\n"  # nothing sent yet: no event is half out
        self._passing = 0

    @property
    def between_events(self) -> bool:
        """True while everything that was sent are whole events, and nothing is being sent."""
        return not self._passing and _ends_event(self._tail)

    def begins(self, chunk: bytes) -> bytes:
        """Note that *chunk* is being sent; return the tail that `passed` takes when it has been."""
        # Beside another one nobody knows which is first: then it stands for itself alone.
        before = b"" if self._passing else self._tail
        self._passing += 1
        return (before + bytes(chunk[-4:]))[-4:]

    def passed(self, tail: bytes) -> None:
        """Note that the chunk that *tail* belongs to has been sent."""
        self._passing -= 1
        self._tail = tail

    def failed(self, tail: bytes) -> None:
        """Note that the chunk may have been sent, or not: sending was cancelled, or raised."""
        self._passing -= 1
        if not (_ends_event(self._tail) and _ends_event(tail)):
            self._tail = _MIDDLE


def is_event_stream(start: Message) -> bool:
    """Return True if a response that starts like this may end between any two of its events.

    Not one with a length, which would be missed; not one in an encoding, whose events cannot be
    seen, and which has an end of its own.
    """
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return media_type == b"text/event-stream" and not (
        b"content-length" in headers or b"content-encoding" in headers
    )


def reconnects(scope: Scope) -> bool:
    """Return True for a request whose client connects again when the event stream ends.

    An EventSource sends GET and `Accept: text/event-stream`, and comes back by itself (WHATWG
    HTML, section 9.2). The client of any other request takes the end of the body for the end of
    its answer: OpenAI's returns what it has got.
    """
    return scope["method"] == "GET" and any(
        name == b"accept" and b"text/event-stream" in value.lower()
        for name, value in scope["headers"]
    )


def _ends_event(tail: bytes) -> bool:
    # Lines end in CR LF, LF or CR; an empty one ends an event.
    return tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n")
