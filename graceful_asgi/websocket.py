"""A WebSocket session in flight, and how a drain closes it: at a message boundary.

The session is closed when its handler waits for the next message, never while it works on one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Final

import anyio

from . import journal
from .backend import Interrupted, Interruptible
from .errors import EndedError
from .exchange import SERVING, Exchange, unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .asgi import Message, Receive, Scope, Send
    from .drainer import Drainer
    from .inflight import Ending, Kind

SERVICE_RESTART: Final = 1012
"""The close code for "come back": IANA's registry, and what uvicorn sends."""

QUIET_PERIOD: Final = 0.25
"""Seconds without a send after which a reply that comes in several parts is taken for whole."""

RECENT_PERIOD: Final = 30.0
"""Seconds after which a message that has had no reply is taken for one that gets none."""

LAST_PERIOD: Final = 1.0
"""Seconds without another message for the replies that are owed when there is no more time."""

_FAREWELL: Final = {"code": SERVICE_RESTART, "reason": "service restart"}


class WebSocketExchange(Exchange):
    """A WebSocket session, from its handshake to its close."""

    __slots__ = (
        "_changed",
        "_ending",
        "_given_at",
        "_leave_by",
        "_left",
        "_sent_apart_at",
        "_sent_at",
        "_unanswered",
        "_wait",
    )
    kind: ClassVar[Kind] = "websocket"

    def __init__(self, drainer: Drainer, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(drainer, scope, receive, send)
        self._wait: Interruptible | None = None
        """The handler's wait for the next message."""
        self._unanswered = 0
        """Messages that the handler has been given, less what it has sent since."""
        self._given_at = self._sent_at = self._sent_apart_at = -math.inf
        """When it was given a message, sent one, and sent one while it waited for the next."""
        self._changed: anyio.Event | None = None
        """Set as it waits, or has sent something; there once somebody looks for the moment."""
        self._ending = self._left = False
        self._leave_by: float | None = None

    @property
    def progress(self) -> str:
        return {"not started": "handshake", "started": "open"}.get(self.answer, "closed")

    @property
    def cut(self) -> bool:
        return False  # a close frame is a whole answer

    @property
    def ending(self) -> Ending:
        if self.drainer.policy.websockets == "close" or self.may_end:
            return "on drain"
        return "never"

    @property
    def was_ended(self) -> bool:
        return self._left

    async def receive(self) -> Message:
        wait = self._wait = Interruptible()
        try:
            if self.drainer.phase is not SERVING and self._is_due() and not self._reply_left():
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
        self._unanswered = max(0, self._unanswered - 1)
        self._sent_at = self.drainer.now()
        if self._wait is not None:
            self._sent_apart_at = self._sent_at
        self._note_change()

    async def _send_late(self, message: Message) -> None:
        if message["type"] != "websocket.close":  # which has been done
            raise EndedError(f"WebSocket {self.path} is closed: the server drains")

    # The end

    def _is_due(self) -> bool:
        return self.answer == "started" and self.drainer.endings.is_due(self)

    def _reply_left(self) -> float:
        """Seconds for which a reply may still be owed, by another task than the one that waits.

        Nobody can see it. A message that has had as many replies as messages came is answered when
        no more of them come; one that never gets any is waited for in vain, and not for long.
        """
        until = min(self._given_at + RECENT_PERIOD, self.drainer.endings.patience_end())
        if not self._unanswered:
            until = min(until, self._sent_apart_at + QUIET_PERIOD)
        return max(0.0, until - self.drainer.now())

    async def end(self) -> None:
        """Close the session as soon as its handler waits and owes no reply."""
        if self._ending or not self.drainer.waiting:
            return  # somebody sees to it; or it is about to be cancelled, and `conclude` closes it
        self._ending = True
        try:
            while self._is_due():
                left = self._reply_left()
                if self._wait is not None and not left:
                    return self._wait.interrupt()
                await self._next_change(left or math.inf)
        finally:
            self._ending = False

    async def _leave(self) -> Message:
        """Close the session between two messages; return what tells the handler of it."""
        if self._sent_at > self._given_at - RECENT_PERIOD:  # it does reply
            await self._wait_for_replies()
        if not self._is_due():  # the drain has been called off
            return await self.receive()
        self._left = True
        await self.conclude()
        return {"type": "websocket.disconnect", **_FAREWELL}

    async def _wait_for_replies(self) -> None:
        """Let what is owed go out while no more messages are given: there is no time for both."""
        if self._leave_by is None:
            self._leave_by = self.drainer.now() + LAST_PERIOD
        while self._unanswered and (left := self._leave_by - self.drainer.now()) > 0:
            await self._next_change(left)

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
            journal.detail("%s was closed already: %r", self.path, exc)
        self.answer = "complete"
