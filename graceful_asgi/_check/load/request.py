"""A request as the clients write it: its bytes, made once, and its h11 event. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11

from ..errors import CheckError

if TYPE_CHECKING:
    from collections.abc import Sequence

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Request:
    """What is written for one request. Make one with `Request.make`."""

    data: bytes = field(repr=False)
    """The head, and the body where it is not written piece by piece."""
    event: h11.Request

    @classmethod
    def make(
        cls, method: str, path: str, *, authority: str, headers: Sequence[Header] = ()
    ) -> Request:
        """Build a request; one of `headers` takes the place of ours of the same name.

        Raises `CheckError` for a path or header that HTTP does not allow.
        """
        given = {name.lower() for name, _ in headers}
        ours = [("Host", authority), ("Accept", "*/*"), ("User-Agent", "graceful-asgi-check")]
        fields = [header for header in ours if header[0].lower() not in given]
        try:
            event = h11.Request(method=method, target=path, headers=[*fields, *headers])
            data = h11.Connection(h11.CLIENT).send(event)
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise CheckError(
                f"{method} {path!r} with headers {list(headers)!r} is no HTTP request: {error}"
            ) from error
        return cls(data or b"", event)
