"""The answer to a request that the server cannot serve any more."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import Message


def unavailable() -> tuple[Message, Message]:
    """Return an HTTP response: 503, with `Retry-After`."""
    body = b"Service Unavailable"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode("ascii")),
        # Spread, so that the clients of one server do not come back in one instant.
        (b"retry-after", str(random.randint(1, 5)).encode("ascii")),
    ]
    return (
        {"type": "http.response.start", "status": 503, "headers": headers},
        {"type": "http.response.body", "body": body, "more_body": False},
    )
