"""Recognises a simple, complete HTTP/1.1 answer at the beginning of some bytes. Pure.

What an answer is, h11 says. It costs more than many a server's own work, though, and a load of
thousands of requests per second is mostly answers of one plain shape. Those are recognised here;
for everything else, incomplete answers included, this says nothing, and h11 is asked.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Simple(NamedTuple):
    """A complete answer, and where in the bytes it ended."""

    status: int
    keep_alive: bool
    end: int


# Stricter than the grammar (RFC 9112, 4 and 5; RFC 9110, 5.5): what is not matched goes to h11.
# No status of 1xx, 204 or 304, whose length is not what Content-Length says.
_HEAD: Final = re.compile(
    rb"HTTP/1\.1 (20[0-35-9]|2[1-9]\d|30[0-35-9]|3[1-9]\d|[45]\d\d) [\x20-\x7e]*\r\n"
    rb"((?:[-0-9A-Za-z_]+:[\t\x20-\x7e]*\r\n)+)"
    rb"\r\n"
)
_FRAMING: Final = re.compile(
    rb"^(content-length|transfer-encoding|connection):[\t ]*([^\r]*?)[\t ]*\r$", re.M | re.I
)
_LENGTH: Final = re.compile(rb"\d{1,9}")


def recognise(data: bytes) -> Simple | None:
    """The answer to a GET that `data` begins with, if it is complete and of the plain shape."""
    head = _HEAD.match(data)
    if head is None:
        return None
    length: int | None = None
    keep_alive = True
    for name, value in _FRAMING.findall(head[2]):
        match name.lower():
            case b"content-length" if length is None and _LENGTH.fullmatch(value):
                length = int(value)
            case b"connection" if value.lower() in (b"close", b"keep-alive"):
                keep_alive = keep_alive and value.lower() != b"close"
            case _:
                return None
    if length is None or len(data) < head.end() + length:
        return None
    return Simple(int(head[1]), keep_alive, head.end() + length)
