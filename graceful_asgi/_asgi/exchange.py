"""One ASGI call in flight: what HTTP requests and WebSocket sessions have in common.

Both watch what passes through `send` and `receive`. While serving, each message costs a comparison
or two. Types unknown here pass through untouched.
"""

from __future__ import annotations

import math
import random
from asyncio import current_task
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from .._core.work import Work
from ..phase import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._core.runner import DrainRunner
    from ..event_loop import Interruptible
    from ..report import Outcome
    from ..types import Message, Receive, Scope, Send
    from .event_stream import EventStream

SCOPE_KEY: Final = "graceful_asgi"
"""Where the scope of a call that is counted holds its exchange and, when the call is over, the
record of its server: a cycle would leave each to the garbage collector. The same middleware further
in passes the call on.

Not in the state: a server may hand out one state for all calls.
"""

SERVING: Final = Phase.SERVING
"""Looked up once: on Python 3.11 an enum member costs a function call."""

Answer = Literal["not started", "started", "complete", "refused"]


class Exchange(Work):
    """What an HTTP request and a WebSocket session have in common."""

    __slots__ = (
        "_body_read",
        "_events",
        "_last",
        "_listening",
        "_receive",
        "_send",
        "_sent",
        "_start",
        "answer",
        "drainer",
        "may_close",
        "scope",
    )

    # Not there before they are known: each request would pay for a None and a 0.
    _last: Message
    """The piece that completes the body. It may be on its way for long."""
    _sent: int
    """Bytes of the body's other pieces."""

    def __init__(self, drainer: DrainRunner, scope: Scope, receive: Receive, send: Send) -> None:
        # What Work.__init__ does, spelled out: the call is a tenth of what a request costs here.
        in_flight = self._in_flight = drainer.in_flight
        self._cancel_scope = None
        self.began = in_flight.clock()
        self.cancelled = False
        self.close_at = math.inf
        try:
            self.task = current_task()
        except RuntimeError:
            self.task = None
        self.drainer = drainer
        self.scope = scope
        self.answer: Answer = "not started"
        self.may_close = False
        """The app has said that it may be ended as a drain begins."""
        self._receive = receive
        self._send = send
        # An HTTP request's, and here all the same: an __init__ of its own would cost more than all
        # of this.
        self._body_read = False
        self._start: Message | None = None
        """How the response began, until somebody wants to know whether it is an event stream."""
        self._events: EventStream | None = None
        self._listening: Interruptible | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Exchange:
        """Return itself: apps copy the scope that it stands in."""
        return self

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def route(self) -> str:
        # Routers put it into the very scope that they were called with. What a mount has taken off
        # the path is at the end of the root path by then.
        route = self.scope.get("route")
        path = getattr(route, "path_format", None) or getattr(route, "path", "")
        if not isinstance(path, str):
            return ""
        root = str(self.scope.get("root_path", ""))
        return root.removeprefix(str(self.scope.get("app_root_path", root))) + path

    @property
    def client(self) -> str:
        client = self.scope.get("client")
        return ":".join(str(part) for part in client or ())

    @property
    def cut(self) -> bool:
        return self.answer == "started"

    @property
    def outcome(self) -> Outcome:
        return "rejected" if self.answer == "refused" else super().outcome

    def close_on_drain(self) -> None:
        """Let the work be ended as soon as a drain begins, or now if one has. Idempotent."""
        self.may_close = True
        if self.drainer.phase is not SERVING:  # and this may be a worker thread
            self.drainer.notifier.post(partial(self.drainer.close_schedule.add, self))

    @property
    def was_closed(self) -> bool:
        """Whether the drain has ended it in the app's place."""
        return False

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        raise NotImplementedError

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on what the app sends."""
        raise NotImplementedError

    async def refuse(self) -> None:
        """Answer in the app's place: not now, come back."""
        raise NotImplementedError

    async def settle(self) -> None:
        """See to what the app has left open when it returned, while draining."""

    async def conclude(self) -> None:
        """Give the client what is still possible after the app was cancelled."""
        raise NotImplementedError


def unavailable() -> tuple[Message, Message]:
    """Return an HTTP response that says: not now, come back."""
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
