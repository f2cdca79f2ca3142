"""One ASGI call in flight: what passes through its `send` and `receive`, and how it may end.

While serving, each message costs one comparison. Types unknown here pass through untouched.
"""

from __future__ import annotations

import random
from asyncio import current_task
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from . import header, journal
from .edge import NoEdge
from .errors import GracefulError
from .inflight import Kind, Outcome, Work
from .phase import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .asgi import Message, Receive, Scope, Send
    from .drainer import Drainer

DRAINER_KEY: Final = "graceful_asgi"
"""Where `scope["state"]` holds the server's drainer, from the lifespan on."""

COUNTED_KEY: Final = "graceful_asgi.counted"
"""Set in the scope of a call that is counted: the same middleware further in passes it on.

Not the exchange itself: it has the scope, and a cycle would leave each to the garbage collector.
Not in the state: a server may hand out one state for all calls.
"""

_BODIES: Final = frozenset(
    ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")
)

SERVICE_RESTART: Final = 1012
"""The WebSocket close code for "come back": IANA's registry, and what uvicorn sends."""

SERVING: Final = Phase.SERVING
"""Looked up once: on Python 3.11 an enum member costs a function call."""

Answer = Literal["not started", "started", "complete", "refused"]


class Exchange(Work):
    """What an HTTP request and a WebSocket session have in common."""

    __slots__ = ("_body_read", "_receive", "_send", "answer", "drainer", "scope")

    def __init__(self, drainer: Drainer, scope: Scope, receive: Receive, send: Send) -> None:
        # What Work.__init__ does, spelled out: the call is a tenth of what a request costs here.
        in_flight = self._in_flight = drainer.in_flight
        self._cancel_scope = None
        self.began = in_flight.clock()
        self.cancelled = False
        try:
            self.task = current_task()
        except RuntimeError:
            self.task = None
        self.drainer = drainer
        self.scope = scope
        self.answer: Answer = "not started"
        self._receive = receive
        self._send = send
        self._body_read = False

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def cut(self) -> bool:
        return self.answer == "started"

    @property
    def outcome(self) -> Outcome:
        return "rejected" if self.answer == "refused" else super().outcome

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        raise NotImplementedError

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on what the app sends."""
        raise NotImplementedError

    async def refuse(self) -> None:
        """Answer in the app's place: not now, come back."""
        raise NotImplementedError

    async def conclude(self) -> None:
        """Give the client what is still possible after the app was cancelled."""
        raise NotImplementedError


class HTTPExchange(Exchange):
    """An HTTP request and its response."""

    __slots__ = ()
    kind: ClassVar[Kind] = "http"

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def progress(self) -> str:
        return f"response {self.answer}"

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._body_read = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # Returns the server's own awaitable: a coroutine around it would be half of our cost.
        kind = message["type"]
        if kind == "http.response.start":
            self.answer = "started"
            if self.drainer.phase is not SERVING and self._may_close(message):
                message = header.with_close(message)
        elif kind in _BODIES and not message.get("more_body", False):
            return self._complete(message)
        return self._send(message)

    async def _complete(self, message: Message) -> None:
        await self._send(message)  # waits for a slow reader: cancelled here, the answer is cut
        self.answer = "complete"

    def _may_close(self, message: Message) -> bool:
        # An early answer plus a close, with the body still on its way, breaks the client's pipe
        # before it has read the answer. The next response on the connection says it instead.
        body_pending = not self._body_read and header.has_body(self.scope["headers"])
        return header.closes(self.scope, message) and not body_pending

    async def refuse(self) -> None:
        start, body = _unavailable()
        await self.send(start)
        await self.send(body)
        self.answer = "refused"

    async def conclude(self) -> None:
        if self.cut and isinstance(self.drainer.edge, NoEdge):
            # An unknown server cuts the answer only if it sees that the app has failed.
            raise GracefulError(f"{self.method} {self.path} was cut at its deadline")
        if self.answer == "not started":
            start, body = _unavailable()
            if header.closes(self.scope, start):
                start = header.with_close(start)  # whatever is unread: the process is going away
            try:
                await self._send(start)
                await self._send(body)
            except OSError as exc:
                journal.detail("%s %s: the client has gone: %r", self.method, self.path, exc)
            self.answer = "complete"


class WebSocketExchange(Exchange):
    """A WebSocket session, from its handshake to its close."""

    __slots__ = ()
    kind: ClassVar[Kind] = "websocket"

    @property
    def progress(self) -> str:
        return {"not started": "handshake", "started": "open"}.get(self.answer, "closed")

    @property
    def cut(self) -> bool:
        return False  # a close frame is a whole answer

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.answer = "complete"
        return message

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "websocket.accept":
            self.answer = "started"
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self.answer = "complete"
        return self._send(message)

    async def refuse(self) -> None:
        if "websocket.http.response" not in (self.scope.get("extensions") or ()):
            await self.conclude()
            self.answer = "refused"
            return
        for message in _unavailable():
            await self.send({**message, "type": f"websocket.{message['type']}"})
        self.answer = "refused"

    async def conclude(self) -> None:
        if self.answer == "complete":
            return
        close = {"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"}
        try:
            await self.send(close)
        except Exception as exc:  # the server has closed it first, in its own words
            journal.detail("%s was closed already: %r", self.path, exc)


def _unavailable() -> tuple[Message, Message]:
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
