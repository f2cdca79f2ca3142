"""A WebSocket session in flight, and how a drain closes it: at a message boundary.

The session is closed when its handler waits for the next message, never while it works on one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Final

import anyio

from .. import log
from ..errors import ClosedError
from ..event_loop import Interrupted, Interruptible
from .exchange import SERVING, Exchange, unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._core.runner import DrainRunner
    from .._core.work import CloseWhen
    from ..report import Kind
    from ..types import Message, Receive, Scope, Send

SERVICE_RESTART: Final = 1012
"""The close code for "come back": IANA's registry, and what uvicorn sends."""

QUIET_PERIOD: Final = 0.25
"""Seconds without a send after which a reply that comes in several parts is taken for whole."""

RECENT_PERIOD: Final = 30.0
"""Seconds after which a message that has had no reply is taken for one that gets none."""

LAST_PERIOD: Final = 1.0
"""Seconds for a reply that is owed when there is no time for one any more."""

_FAREWELL: Final = {"code": SERVICE_RESTART, "reason": "service restart"}


class WebSocketExchange(Exchange):
    """A WebSocket session, from its handshake to its close."""

    __slots__ = (
        "_changed",
        "_closing",
        "_given_at",
        "_left",
        "_replies",
        "_sent_apart_at",
        "_unanswered",
        "_wait",
    )
    kind: ClassVar[Kind] = "websocket"

    def __init__(self, drainer: DrainRunner, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(drainer, scope, receive, send)
        self._wait: Interruptible | None = None
        """The handler's wait for the next message."""
        self._unanswered = 0
        """Messages that the handler has been given, less what it has sent since."""
        self._given_at = self._sent_apart_at = -math.inf
        """When it was given a message last, and sent one while it waited for the next."""
        self._changed: anyio.Event | None = None
        """Set as it waits, or has sent something; there once somebody looks for the moment."""
        self._replies = self._closing = self._left = False

    @property
    def progress(self) -> str:
        return {"not started": "handshake", "started": "open"}.get(self.answer, "closed")

    @property
    def cut(self) -> bool:
        return False  # a close frame is a whole answer

    @property
    def close_when(self) -> CloseWhen:
        if self.drainer.policy.websockets == "close" or self.may_close:
            return "on drain"
        return "never"

    @property
    def was_closed(self) -> bool:
        return self._left

    async def receive(self) -> Message:
        wait = self._wait = Interruptible()
        try:
            if self.drainer.phase is not SERVING and self._may_leave():
                raise Interrupted
            self._note_change()
            message = await wait.wait(self._receive())
        except Interrupted:
            return await self._leave()
        finally:
            if self._wait is wait:
                self._wait = None
        if message["type"] == "websocket.receive":
            self._unanswered += 1
            self._given_at = self.drainer.now()
        elif message["type"] == "websocket.disconnect":
            self.answer = "complete"
        return message

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if self._left:
            return self._send_late(message)
        if kind == "websocket.send":
            return self._send_message(message)
        if kind == "websocket.accept":
            self.answer = "started"
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self.answer = "complete"
        return self._send(message)

    async def _send_message(self, message: Message) -> None:
        await self._send(message)
        if self._unanswered:
            self._unanswered -= 1
            self._replies = True
        if self._wait is not None:
            self._sent_apart_at = self.drainer.now()
        self._note_change()

    async def _send_late(self, message: Message) -> None:
        if message["type"] != "websocket.close":  # which has been done
            raise ClosedError(f"WebSocket {self.path} is closed: the server drains")

    # The end

    def _is_due(self) -> bool:
        return self.answer == "started" and self.drainer.close_schedule.is_due(self)

    def _reply_left(self) -> float:
        """Seconds for which a reply may still be owed, by another task than the one that waits.

        Nobody can see it. A message that has had as many replies as messages came is answered when
        no more of them come; one that never gets any is waited for in vain, and not for long.
        """
        patience_end = max(self.drainer.close_schedule.patience_end(), self.close_at + LAST_PERIOD)
        until = min(self._given_at + RECENT_PERIOD, patience_end)
        if not self._unanswered:
            until = min(until, self._sent_apart_at + QUIET_PERIOD)
        return max(0.0, until - self.drainer.now())

    def _may_leave(self) -> bool:
        """Say whether the handler gets no more messages: it replies to them, or time is up.

        One that has never replied to any may just collect them. It goes on as long as it can.
        """
        return self._is_due() and (self._replies or not self._reply_left())

    async def close(self) -> None:
        """Close the session as soon as its handler waits. A reply that it owes goes out first."""
        if self._closing or not self.drainer.waiting:
            return  # somebody sees to it; or it is about to be cancelled, and `conclude` closes it
        self._closing = True
        try:
            while self._is_due():
                if self._wait is not None and self._may_leave():
                    return self._wait.interrupt()
                await self._next_change(self._reply_left() or math.inf)
        finally:
            self._closing = False

    async def _leave(self) -> Message:
        """Close the session between two messages; return what tells the handler of it."""
        while self._is_due() and (left := self._reply_left()):
            await self._next_change(left)
        if not self._is_due():  # the drain has been called off
            return await self.receive()
        self._left = True
        await self.conclude()
        return {"type": "websocket.disconnect", **_FAREWELL}

    def _note_change(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def _next_change(self, seconds: float) -> None:
        """Wait until the handler waits or has sent something, for *seconds* at the most."""
        if self._changed is None or self._changed.is_set():
            self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    async def refuse(self) -> None:
        if "websocket.http.response" in (self.scope.get("extensions") or ()):
            for message in unavailable():
                await self.send({**message, "type": f"websocket.{message['type']}"})
        else:
            await self.conclude()
        self.answer = "refused"

    async def settle(self) -> None:
        if self._left:  # a task of the app's may have been cancelled in the midst of the close
            await self.conclude()

    async def conclude(self) -> None:
        if self.answer == "complete":
            return
        try:
            await self._send({"type": "websocket.close", **_FAREWELL})
        except Exception as exc:  # the server has closed it first, in its own words
            log.detail("%s was closed already: %r", self.path, exc)
        self.answer = "complete"
