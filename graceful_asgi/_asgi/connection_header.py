"""`Connection: close`: which responses get it, and which of the app's own headers stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..types import Message, Scope

Header = tuple[bytes, bytes]

_HTTP_1: Final = frozenset(("1.0", "1.1"))  # HTTP/2 forbids the header (RFC 9113 section 8.2.2)
_OURS: Final = frozenset((b"close", b"keep-alive"))


def closes(scope: Scope, message: Message) -> bool:
    """Return True if this `http.response.start` may carry `Connection: close`.

    False for HTTP/2, which uses GOAWAY instead, and for an interim response or a switch of
    protocols, after which the connection goes on.
    """
    return scope.get("http_version") in _HTTP_1 and message.get("status", 0) >= 200


def with_close(message: Message) -> Message:
    """Return *message* with `Connection: close` in the place of the app's own choice.

    Other tokens of the app (`Connection: upgrade`) stay. Its `Keep-Alive` header is removed: it has
    no meaning without its token in `Connection` (RFC 9112 appendix C.2.2).
    """
    headers: list[Header] = []
    tokens = [b"close"]
    for name, value in message.get("headers", ()):
        lower = name.lower()
        if lower == b"connection":
            tokens += (token for token in _tokens(value) if token.lower() not in _OURS)
        elif lower != b"keep-alive":
            headers.append((name, value))
    headers.append((b"connection", b", ".join(tokens)))
    return {**message, "headers": headers}


def has_body(headers: Iterable[Header]) -> bool:
    """Return True if a request with these headers has a body (RFC 9112 section 6.3)."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            return True
    return False


def _tokens(value: bytes) -> list[bytes]:
    return [token for part in value.split(b",") if (token := part.strip())]
