"""A complete answer, and how one of plain shape is recognised without h11. Pure.

h11 parses every kind of answer, but takes more time than many servers need to make one, and nearly
all answers of a load have one plain shape. `recognise` takes those. It returns None for everything
else, incomplete answers included, and h11 parses that.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT: Final = 1 << 20
"""Bytes of a body that are kept. Of a longer one only its length and its digest are known."""


class HttpAnswer(NamedTuple):
    """A complete answer as it came, right or wrong."""

    status: int
    reusable: bool
    """Both sides may send another request on this connection."""
    type: bytes = b""
    """Its Content-Type, in lower case."""
    encoding: bytes = b""
    """Its Content-Encoding, in lower case."""
    retry_after: bool = False
    """True if it has a Retry-After."""
    location: bytes = b""
    """The target of a redirect."""
    body: bytes = b""
    """The whole body; empty for one longer than `KEPT`."""
    length: int = 0
    """Bytes of the body."""
    digest: bytes = b""
    """Stands for a body longer than `KEPT`."""
    framed: bool = True
    """True if its framing shows where the body ends. Otherwise the body ends with the connection,
    and one that was cut looks whole (RFC 9112, 6.3)."""

    @property
    def is_event_stream(self) -> bool:
        """Return True if its type is `text/event-stream`."""
        return self.type.partition(b";")[0].strip() == b"text/event-stream"


# Stricter than the grammar (RFC 9112, 4 and 5; RFC 9110, 5.5): what is not matched goes to h11.
# No status of 1xx, 204 or 304, whose length is not what Content-Length says.
_HEAD: Final = re.compile(
    rb"HTTP/1\.1 (20[0-35-9]|2[1-9]\d|30[0-35-9]|3[1-9]\d|[45]\d\d) [\x20-\x7e]*\r\n"
    rb"((?:[-0-9A-Za-z_]+:[\t\x20-\x7e]*\r\n)+)"
    rb"\r\n"
)
_FIELDS: Final = re.compile(
    rb"^(content-length|transfer-encoding|connection|content-type|content-encoding|retry-after"
    rb"|location):[\t ]*([^\r]*?)[\t ]*\r$",
    re.M | re.I,
)
_LENGTH: Final = re.compile(rb"\d{1,9}")


def recognise(data: bytes) -> tuple[HttpAnswer, int] | None:
    """Return the answer to a GET that `data` begins with, and where it ends.

    None unless it is complete and of plain shape.
    """
    blank = data.find(b"\r\n\r\n") + 4
    if blank < 4:
        return None
    head = _read_head(data[:blank])
    if head is None or len(data) < (end := blank + head.length):
        return None
    return head._replace(body=data[blank:end]), end


# Within a second the answers of a load differ in nothing but, perhaps, their bodies.
@lru_cache(maxsize=256)
def _read_head(data: bytes) -> HttpAnswer | None:
    """Return the answer that a head begins, with the length of its body."""
    head = _HEAD.fullmatch(data)
    if head is None:
        return None
    length: int | None = None
    reusable = True
    fields = []
    for name, value in _FIELDS.findall(head[2]):
        match name.lower():
            case b"content-length" if length is None and _LENGTH.fullmatch(value):
                length = int(value)
            case b"connection" if value.lower() in (b"close", b"keep-alive"):
                reusable = reusable and value.lower() != b"close"
            case b"content-length" | b"connection" | b"transfer-encoding":
                return None
            case _:
                fields.append((name.lower(), value))
    if length is None or length > KEPT:
        return None
    return answer(int(head[1]), reusable, fields)._replace(length=length)


def answer(status: int, reusable: bool, fields: Iterable[tuple[bytes, bytes]]) -> HttpAnswer:
    """Return an answer without a body. `fields` are its headers, their names in lower case."""
    headers = dict(fields)
    return HttpAnswer(
        status,
        reusable,
        type=headers.get(b"content-type", b"").lower(),
        encoding=headers.get(b"content-encoding", b"").lower(),
        retry_after=b"retry-after" in headers,
        location=headers.get(b"location", b""),
    )


class Body:
    """Takes a body as it comes, piece by piece."""

    __slots__ = ("_digest", "_length", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0
        self._digest = hashlib.blake2b(digest_size=16, usedforsecurity=False)

    def add(self, data: bytes) -> None:
        """Take the next piece."""
        self._length += len(data)
        if self._length <= KEPT:
            self._pieces.append(data)
            return
        for piece in self._pieces:
            self._digest.update(piece)
        self._pieces.clear()
        self._digest.update(data)

    def of(self, head: HttpAnswer) -> HttpAnswer:
        """Return the answer with this body."""
        return head._replace(
            body=b"".join(self._pieces),
            length=self._length,
            digest=self._digest.digest() if self._length > KEPT else b"",
        )
