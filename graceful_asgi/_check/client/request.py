"""A request as the clients write it: its bytes, made once, and its h11 event. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11

from ..errors import CheckError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .plan import Endpoint, Header


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes of one request. Make one with `Request.make`."""

    data: bytes = field(repr=False)
    """The head, and the body where it is not written piece by piece."""
    event: h11.Request
    endpoint: Endpoint | None = None
    """The endpoint of the learned answers. None: any complete answer but a 5xx is right."""

    @classmethod
    def make(
        cls, method: str, path: str, *, authority: str, headers: Sequence[Header] = ()
    ) -> Request:
        """Build a request without a body; one of `headers` replaces ours of the same name.

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

    @classmethod
    def to(
        cls,
        endpoint: Endpoint,
        *,
        authority: str,
        headers: Sequence[Header],
        with_body: bool = True,
    ) -> Request:
        """Build the request that asks for an endpoint; `headers` replace those of the endpoint.

        Without `with_body` the body, which is announced all the same, is left to the caller.
        """
        given = {name.lower() for name, _ in headers}
        own = [header for header in endpoint.headers if header[0].lower() not in given]
        if endpoint.method != "GET":
            own.append(("Content-Length", str(len(endpoint.body))))
        head = cls.make(
            endpoint.method, endpoint.path, authority=authority, headers=[*own, *headers]
        )
        return cls(head.data + (endpoint.body if with_body else b""), head.event, endpoint)
