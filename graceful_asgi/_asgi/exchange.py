"""One ASGI call in flight: the base class of HTTP requests and WebSocket sessions.

Both watch what passes through `send` and `receive`. While serving, each message costs a comparison
or two. Types unknown here pass through untouched.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .._core.work import Work
from ..errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .._core.runner import DrainRunner
    from ..report import Outcome
    from ..types import Message, Receive, Scope, Send

    AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])

Answer = Literal["not started", "started", "complete", "refused"]

Closing = Literal["on drain", "at deadline"]
"""The cause of a close by the drain: that it began, or that the grace period ends."""


class Exchange(Work):
    """An HTTP request with its response, or a WebSocket session.

    `GracefulMiddleware.__call__` fills in the slots. An `__init__` would do that more readably, and
    that one call would be a sixth of what the middleware costs.

    Attributes:
        start: the app's `http.response.start`, or another first message.
        last: the last message that the app has sent after that.
        sending: what the server's `send` returned for the last message.
        may_close: True once the app has called `close_on_drain`.
        closed: when the drain closed the exchange in the app's place. It is set before the close
            is sent. Later messages of the app are not passed on.
        aware: True once the app knows that its peer is gone, from a disconnect or from an error.
    """

    __slots__ = ("_receive", "_send", "drainer", "last", "scope", "sending", "start")

    drainer: DrainRunner
    scope: Scope
    _receive: Receive
    _send: Send
    start: Message | None
    last: Message | None
    sending: Awaitable[None] | None
    closed: Closing | None = None
    may_close: bool = False
    aware: bool = False

    if TYPE_CHECKING:

        @property
        def answer(self) -> Answer:
            """The progress of the response, or of the handshake and the close."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Exchange:
        """Return the exchange itself: apps make deep copies of the scope that holds it."""
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
    def is_unanswered(self) -> bool:
        return self.answer == "not started"

    @property
    def unaware(self) -> bool:
        return self.closed is not None and not self.aware

    @property
    def outcome(self) -> Outcome:
        if self.answer == "refused":
            return "rejected"
        if self.closed is None:
            return super().outcome
        if self.cut:  # the peer has not taken the close
            return "aborted"
        # Cancelled because it could not know of the close, or because it knew and did not end?
        stayed = self.cancelled and self.aware
        return "cancelled" if self.closed == "at deadline" or stayed else "closed"

    def close_on_drain(self) -> None:
        """Allow a drain to close the exchange as it begins, or now if one has. Idempotent."""
        self.may_close = True
        if not self.drainer.serving:  # posted, because this may be a worker thread
            schedule = self.drainer.close_schedule
            self.drainer.notifier.post(partial(schedule.add, self, now=True))

    def excuses(self, error: Exception) -> bool:
        """Return True for an *error* that the app raises only because its exchange was closed."""
        if self.answered_for_app:
            return True
        return self.closed is not None and ClosedError.is_behind(error)

    @contextmanager
    def _closing(self, when: Closing) -> Iterator[None]:
        """Close the exchange in a block, which sends the close."""
        self.closed = when
        try:
            yield
        except BaseException:
            # Cancelled while it waits for a slow reader: the app gave up its own `send`, which this
            # is a part of, or the drain was called off. If there is time, the exchange goes on.
            if self.drainer.state.waiting or self.drainer.serving:
                self.closed = None
            raise
        self.drainer.close_schedule.watch(self)

    async def answer_for_app(self) -> None:
        if self.is_unanswered:
            self.answered_for_app = True
            await self.conclude()

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        raise NotImplementedError

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on what the app sends."""
        raise NotImplementedError

    async def refuse(self) -> None:
        """Answer 503 in the app's place."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Complete what the app has left open when it returned, while draining."""

    async def conclude(self) -> None:
        """Give the client the best end that is possible after the app was cancelled."""
        raise NotImplementedError


def marked_as_coroutine_function(function: AnyCallable) -> AnyCallable:
    """Return *function* so that `iscoroutinefunction` takes it for what it returns.

    A `send` that returns the server's own awaitable saves a coroutine for each message. asgiref
    warns of a `send` that is no coroutine function (`asgiref.wsgi`, `asgiref.sync`).
    """
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:  # Python 3.12 and newer
        marked: AnyCallable = mark(function)
        return marked
    # The mark of `asyncio.iscoroutinefunction`, which no type knows.
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function
