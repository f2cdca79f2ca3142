"""The plan of a load: clients, paths and periods. Plain data; no behaviour."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, fields
from typing import Final, TypeAlias

from ...text import REQUEST_PATH, REQUEST_PATH_IN_WORDS

Header: TypeAlias = tuple[str, str]

UPLOAD_LENGTH: Final = 64 * 1024
_ACCEPT_EVENTS: Final = ("Accept", "text/event-stream")
_BYTES: Final = ("Content-Type", "application/octet-stream")
_TARGET: Final = re.compile(rf"([A-Za-z]+ )?{REQUEST_PATH}")
"""A path, with or without a method in front."""

_FIELDS: Final = {
    "--path": "path",
    "--slow-path": "slow_path",
    "--stream-path": "stream_path",
    "--upload-path": "upload_path",
    "--post-path": "post_path",
    "--sse-path": "event_stream_path",
    "--sse-post-path": "post_event_stream_path",
    "--ws-path": "websocket_path",
    "--ws-push-path": "websocket_push_path",
    "--hang-path": "hang_path",
}
"""The field that each option of the command line gives."""
_SLOW: Final = ("--slow-path", "--stream-path")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One scenario's request. Its right answers are learned before the load."""

    option: str
    """The option that gives it."""
    method: str
    path: str
    headers: tuple[Header, ...] = ()
    """Besides those that every request has."""
    body: bytes = b""
    is_stream: bool = False
    """Answers in events, perhaps without an end."""
    is_slow: bool = False
    """True if the answer has to take a second or more."""

    @property
    def text(self) -> str:
        """Return it as people write it: "GET /report"."""
        return f"{self.method} {self.path}"

    @property
    def named(self) -> str:
        """Return it with the option that gives it, as the errors about it begin."""
        return f"{self.option} {self.path}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """All clients and paths of a load. Periods in seconds; None: the scenario is not run.

    A path may have a method in front: ``"POST /report"``. Without one it is asked for by GET, or by
    POST where the plan has a `body`.
    """

    keep_alive_clients: int = 100
    """Clients that keep their connection for as long as the server lets them."""
    fresh_clients: int = 50
    """Clients that open a connection for each request and close it after the answer."""
    think_period: float = 0.02
    """A client pauses between requests for a time drawn evenly from 0 to this."""
    path: str = "/"
    headers: tuple[Header, ...] = ()
    """Sent with every request."""
    body: bytes | None = None
    """Sent with every request whose method is not GET; uploads have a body of their own."""
    slow_path: str | None = None
    """Takes a second or more to answer."""
    stream_path: str | None = None
    """Answers with a body that takes as long."""
    post_path: str | None = None
    """Takes a POST with the `body`, or with ``{}``, by clients that keep their connection."""
    upload_path: str | None = None
    """Reads the body of a POST."""
    event_stream_path: str | None = None
    """A `text/event-stream` that a browser asks for by GET, and again when it ends."""
    post_event_stream_path: str | None = None
    """A `text/event-stream` that answers a POST, as of an LLM, and is not asked for again."""
    websocket_path: str | None = None
    websocket_message: str = "graceful-asgi-check"
    """The message that the client of a WebSocket sends. Best is a message that gets a reply."""
    websocket_push_path: str | None = None
    """A WebSocket on which the server sends by itself."""
    hang_path: str | None = None
    """Never answers."""
    single_after: float = 2.0
    """Seconds from the start of the load until the requests for the signal's moment are sent."""
    answer_period: float = 15.0
    """Seconds that a client of the load waits for a whole answer before it counts as lost.

    The single requests are waited for until the server has gone.
    """
    latency: float = 0.0
    """Seconds of a round trip to the server, besides the server's own time."""
    connect_period: float = 3.0
    connect_retries: int = 4
    """Retries after the signal only. Before it, the first connect that fails ends the load."""
    connect_retry_interval: float = 0.05
    right_statuses: frozenset[int] = frozenset()
    """Statuses that are right though they are no 2xx."""
    allow_reject: bool = False
    """A 5xx with a Retry-After is no fault once the server has been told to stop."""
    any_body: bool = False
    """Do not compare bodies: whatever is not empty is right."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a bad path, or a count or period that is negative or infinite."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{each.name}={value!r}: must be zero or more, and finite")
            if each.name.endswith("path") and not (value is None or _TARGET.fullmatch(str(value))):
                raise ValueError(f"{each.name}={value!r}: must be {REQUEST_PATH_IN_WORDS}")

    @property
    def load(self) -> Endpoint:
        """The request that the load sends."""
        return self._plain("--path", self.path)

    def endpoint(self, option: str) -> Endpoint | None:
        """Return the request to the path that *option* gives; None: the plan has no such path."""
        target: str | None = getattr(self, _FIELDS[option])
        if target is None:
            return None
        body = b"{}" if self.body is None else self.body
        match option:
            case "--upload-path":
                return Endpoint(option, *_split(target, "POST"), (_BYTES,), b"x" * UPLOAD_LENGTH)
            case "--sse-path":  # as an EventSource asks
                return Endpoint(option, *_split(target, "GET"), (_ACCEPT_EVENTS,))
            case "--post-path":
                return Endpoint(option, *_split(target, "POST"), (_typed(body),), body)
            case "--sse-post-path":
                headers = (_ACCEPT_EVENTS, _typed(body))
                return Endpoint(option, *_split(target, "POST"), headers, body, is_stream=True)
            case _:
                return self._plain(option, target)

    def _plain(self, option: str, target: str) -> Endpoint:
        method, path = _split(target, "GET" if self.body is None else "POST")
        body = b"" if method == "GET" else self.body or b""
        kind = (_typed(body),) if body else ()
        return Endpoint(option, method, path, kind, body, is_slow=option in _SLOW)


def _typed(body: bytes) -> Header:
    """Return the type of a body as far as it can be guessed: JSON, or anything."""
    try:
        json.loads(body)
    except ValueError:
        return _BYTES
    return ("Content-Type", "application/json")


def _split(text: str, usual: str) -> tuple[str, str]:
    method, _, path = text.rpartition(" ")
    return method or usual, path
