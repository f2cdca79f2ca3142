"""A WebSocket session in flight, and how a drain closes it: at a message boundary.

The session is closed when its handler waits for the next message, never while it works on one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal

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

REPLY_PERIOD: Final = 1.0
"""Seconds for the reply to the last message, where another task sends it than the one that waits
for the next. Nobody can see whether there will be one; where none is owed they pass in vain."""

Pattern = Literal["silent", "in turn", "apart"]
"""What a handler has shown of itself: it has sent nothing yet; it receives and sends in turn; or it
waits for messages in one task while another sends."""

_FAREWELL: Final = {"code": SERVICE_RESTART, "reason": "service restart"}


class WebSocketExchange(Exchange):
    """A WebSocket session, from its handshake to its close."""

    __slots__ = ("_expecting", "_left", "_next", "_pattern", "_replied", "_unanswered")
    kind: ClassVar[Kind] = "websocket"

    def __init__(self, drainer: Drainer, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(drainer, scope, receive, send)
        self._next = Interruptible()
        """The handler's wait for the next message."""
        self._pattern: Pattern = "silent"
        self._unanswered = 0
        """Messages that the handler has been given, less what it has sent since."""
        self._replied: anyio.Event | None = None
        """Set when that comes to zero; there while somebody waits for it."""
        self._expecting = False
        self._left = False

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

    async def receive(self) -> Message:
        if self.drainer.phase is not SERVING and self._is_due():
            return await self._leave()
        try:
            message = await self._next.wait(self._receive())
        except Interrupted:
            return await self._leave()
        if message["type"] == "websocket.receive":
            self._unanswered += 1
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
        if self._next.waiting:
            self._pattern = "apart"
        elif self._pattern == "silent":
            self._pattern = "in turn"
        await self._send(message)
        self._unanswered = max(0, self._unanswered - 1)
        if self._replied is not None and not self._unanswered:
            self._replied.set()

    async def _send_late(self, message: Message) -> None:
        if message["type"] != "websocket.close":  # which has been done
            raise EndedError(f"WebSocket {self.path} is closed: the server drains")

    # The end

    def _is_due(self) -> bool:
        return (
            self.answer == "started" and not self._expecting and self.drainer.endings.is_due(self)
        )

    async def end(self) -> None:
        """Close the session if its handler waits. Else `receive` does, when it comes back."""
        if not self.drainer.waiting:
            return  # it is about to be cancelled: `conclude` closes it
        if self._pattern == "silent":
            # A first reply may be on its way, or none is ever sent. Until that is known, the
            # handler goes on.
            self._expecting = True
            await self._wait_for_reply()
            self._expecting = False
        if self.answer == "started":
            self._next.interrupt()

    async def _leave(self) -> Message:
        """Close the session between two messages; return what tells the handler of it."""
        if self._pattern == "apart":
            await self._wait_for_reply()
        self._left = True
        await self.conclude()
        return {"type": "websocket.disconnect", **_FAREWELL}

    async def _wait_for_reply(self) -> None:
        if self._unanswered:
            self._replied = anyio.Event()
            with anyio.move_on_after(REPLY_PERIOD):
                await self._replied.wait()

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
