"""A WebSocket session in flight, and how a drain closes it: at a boundary.

A boundary is a moment in which the session owes its client no reply, as far as can be seen:

* the handler waits for the next message, and the server has none;
* or the handler got no message lately, and is between two of its own sends: it only sends, or waits
  for something else.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

import anyio
import anyio.lowlevel

from .. import log
from .._core.unavailable import unavailable
from ..errors import ClosedError
from .exchange import Closing, Exchange, marked_as_coroutine_function

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._core.work import CloseWhen
    from ..report import Kind
    from ..types import Message
    from .exchange import Answer

SERVICE_RESTART: Final = 1012
"""The close code that means "connect again": 1012 in IANA's registry. uvicorn sends the same."""

QUIET_PERIOD: Final = 0.25
"""Seconds without a send after which a reply in several parts counts as complete."""

RECENT_PERIOD: Final = 30.0
"""Seconds after which a message without a reply counts as one that gets none."""

READ_TURNS: Final = 10
"""Turns of the loop until bytes in the kernel have woken a waiting handler: one to poll, and up to
five in websockets' legacy protocol, whose reader is a task of its own."""

READ_PERIOD: Final = 0.02
"""Seconds for the server to hand over a message that it has read."""

CLOCK_ERROR: Final = 0.001
"""Seconds that are as good as none: a loop's timer may come that much too early."""

MOST_AHEAD: Final = 100
"""The messages to take from the server for a handler that does not ask for them."""

_CLOSE: Final = {"code": SERVICE_RESTART, "reason": "service restart"}


class WebSocketExchange(Exchange):
    """A WebSocket session, from its handshake to its close."""

    __slots__ = (
        "_changed",
        "_closes_after_send",
        "_given",
        "_given_at",
        "_holds_back",
        "_hurried",
        "_is_told",
        "_let_go",
        "_mailbox",
        "_patience_end",
        "_reading",
        "_receiving",
        "_replies",
        "_sending",
        "_sent_apart_at",
        "_told_at",
        "_unanswered",
        "answer",
    )

    kind: ClassVar[Kind] = "websocket"

    def __init__(self) -> None:
        self.answer: Answer = "not started"
        self._receiving = self._sending = 0
        """The calls of `receive` that wait for a message, and the calls of `send` under way."""
        self._given = self._unanswered = 0
        """The messages that the handler was given; that number less its sends since then."""
        self._replies = False
        """True once the handler has sent something after it got a message."""
        self._given_at = self._sent_apart_at = -math.inf
        """The instant at which the handler got its last message; the one at which it last sent a
        message while it also waited for one: then one of its tasks sends, and another waits."""

        # While a drain closes the session:
        self._is_told, self._told_at = False, -math.inf
        """True while `close` runs; when it began."""
        self._patience_end, self._hurried = math.inf, False
        self._holds_back = self._closes_after_send = False
        """True while the handler gets no messages; True if its next send closes the session."""
        self._let_go: anyio.Event | None = None
        """Set when the handler may get messages again, or the session is over."""
        self._mailbox: deque[Message] = deque()
        """Messages taken from the server that the handler has not been given."""
        self._reading: anyio.Event | None = None
        """Set when the drain has taken what the server had read; None before and after."""
        self._changed: anyio.Event | None = None
        """Set when the handler waits or has sent something; None until `close` waits for that."""

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

    # What passes

    async def receive(self) -> Message:
        self._receiving += 1
        # As in `_note_change`, without the call: every message comes through here.
        if self._changed is not None:
            self._changed.set()
        try:
            message = None
            if self._reading is None and not self._mailbox:
                message = await self._receive()
            if message is None or self._holds_back or self.closed is not None:
                message = await self._next_message(message)
        finally:
            self._receiving -= 1
        if message["type"] == "websocket.receive":
            self._given += 1
            self._unanswered += 1
            self._given_at = self.drainer.in_flight.clock()
        elif message["type"] == "websocket.disconnect":
            self.answer = "complete"
            self.aware = True
            self._note_change()
        return message

    async def _next_message(self, message: Message | None) -> Message:
        """Return the next message for the handler: *message*, if it was received just now."""
        while True:
            if message is None and self._reading is not None:
                await self._reading.wait()
            if message is None:
                message = self._mailbox.popleft() if self._mailbox else await self._receive()
            if message["type"] != "websocket.receive":
                return message if self.closed is None else _as_ours(message)
            if self.closed is None:
                if not self._holds_back:
                    return message
                self._mailbox.appendleft(message)
                if self._let_go is None:
                    self._let_go = anyio.Event()
                await self._let_go.wait()
            # The message has crossed our close. The client has to send it again: 1012 says so.
            message = None

    @marked_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if self.closed is not None or self.answered_for_app:
            return self._send_late(message)
        if kind == "websocket.send":
            return self._send_message(message)
        if kind == "websocket.accept":
            self.answer = "started"
            self._note_change()
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self.answer = "complete"
            self._note_change()
        return self._send(message)

    async def _send_message(self, message: Message) -> None:
        self._sending += 1
        try:
            await self._send(message)
        finally:
            self._sending -= 1
        if self._unanswered:
            self._unanswered -= 1
            self._replies = True
        if self._receiving:
            self._sent_apart_at = self.drainer.in_flight.clock()
        if self._changed is not None:
            self._changed.set()
        # A handler that is always inside of `send` is between two sends only here.
        if self._closes_after_send and not self._receiving and not self._owes_for():
            await self._close()

    async def _send_late(self, message: Message) -> None:
        if self.closed is not None and message["type"] != "websocket.close":  # which has been done
            # Another task may be about to get the disconnect, and to cancel this one. If this one
            # runs first and fails, some frameworks log an error.
            for _ in range(READ_TURNS if self._receiving else 0):
                await anyio.lowlevel.checkpoint()
            self.aware = True
            raise ClosedError(f"WebSocket {self.path} is closed: the server drains")
        self.aware = True

    def _note_change(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def _next_change(self, seconds: float) -> None:
        """Wait until the handler waits or has sent something, for *seconds* at the most."""
        if self._changed is None or self._changed.is_set():
            self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    # The close

    async def close(self, patience_end: float, *, hurried: bool = False) -> None:
        self._patience_end, self._hurried = patience_end, hurried
        if self._is_told:  # the app has called `close_on_drain` meanwhile: look again
            return self._note_change()
        self._is_told, self._told_at = True, self.drainer.now()
        try:
            while self.closed is None and self.answer in ("not started", "started"):
                if self.answer == "not started":
                    await self._next_change(math.inf)
                elif self._receiving:
                    await self._close_in_receive()
                elif owes_for := self._owes_for():
                    await self._next_change(owes_for)
                else:
                    await self._close_between_sends()
        finally:
            self._is_told = self._closes_after_send = self._holds_back = False
            if self._let_go is not None:
                # A later drain needs another one: to wait for one that is set would never wait.
                self._let_go.set()
                self._let_go = None

    async def close_now(self) -> None:
        is_open = self.answer == "started" and self.closed is None
        if is_open and not self._sending and not self._owes_for():
            await self._close("at deadline")

    async def _close_in_receive(self) -> None:
        """Close the session while its handler waits for a message; return when it waits no more.

        The handler first gets a message that the server has read already. Then it gets no more, so
        that it has to answer only what it got. A handler that has never sent a reply may only
        collect messages: it gets them until no reply can be expected any more.
        """
        given = self._given
        for _ in range(READ_TURNS):
            await anyio.lowlevel.checkpoint()
            if not self._receiving or self._given != given:
                return
        # Until the close: a message that got through now would owe a reply of its own.
        self._holds_back = self._holds_back or self._replies or not self._owes_for()
        if owes_for := self._owes_for():
            return await self._next_change(owes_for)
        if self._holds_back and not self._sending:
            return await self._close()
        await self._next_change(math.inf)

    async def _close_between_sends(self) -> None:
        """Close the session of a handler that does not wait for a message.

        First take what the server has read already, above all the client's own close.
        """
        await self._read_ahead()
        if self._receiving or self._owes_for() or self.answer != "started":
            return
        if self._sending:
            self._closes_after_send = True
            return await self._next_change(math.inf)
        await self._close()

    async def _read_ahead(self) -> None:
        """Take the messages that the server has read, and keep them for the handler."""
        self._reading = anyio.Event()
        try:
            while len(self._mailbox) < MOST_AHEAD and not self._receiving:
                message = None
                with anyio.move_on_after(READ_PERIOD):
                    message = await self._receive()
                if message is None:
                    return
                self._mailbox.append(message)
                if message["type"] == "websocket.disconnect":
                    self.answer = "complete"
                    return
        finally:
            self._reading.set()
            self._reading = None

    def _owes_for(self) -> float:
        """Return the seconds for which the session may owe its client a reply; 0 if none."""
        until = self._owes_apart() if self._receiving else self._owes_in_turn()
        left = until - self.drainer.now()
        return left if left > CLOCK_ERROR else 0.0

    def _owes_apart(self) -> float:
        """Return until when another task of the handler may owe a reply, while one task waits.

        That cannot be observed. If there were as many sends as messages, the replies are complete
        when no more sends come. If a message got no reply, wait for one, but not for long.
        """
        if self.may_close or (self._replies and math.isinf(self._sent_apart_at)):
            return -math.inf  # one task does it all, and has replied: it waits again
        until = min(self._given_at + RECENT_PERIOD, self._patience_end)
        return until if self._unanswered else min(until, self._sent_apart_at + QUIET_PERIOD)

    def _owes_in_turn(self) -> float:
        """Return until when a reply may be owed while the handler does not wait for a message.

        If the handler got a message lately, it works on the reply, or sends parts of it, until it
        waits again. If its last message was long ago, it sends for ever and owes no reply.
        """
        # A reply may take as long as the grace period allows for one.
        recent_period = max(RECENT_PERIOD, self.drainer.policy.grace_period)
        until = math.inf if self._given_at > self._told_at - recent_period else -math.inf
        if not self._unanswered:
            if self.may_close:
                until = -math.inf
            elif self._hurried:
                until = min(until, self._patience_end)
        return max(until, self._patience_end) if self._mailbox else until

    async def _close(self, when: Closing = "on drain") -> None:
        with self._closing(when):
            await self.conclude()
            self._note_change()

    # In the app's place

    async def refuse(self) -> None:
        await self.conclude()
        self.answer = "refused"

    async def settle(self) -> None:
        # The task of the app that closed it may have been cancelled; or the app takes its
        # cancellation for an end.
        if self.closed is not None or (self.cancelled and self.is_unanswered):
            await self.conclude()

    async def conclude(self) -> None:
        if self.answer == "complete":
            return
        messages: tuple[Message, ...] = ({"type": "websocket.close", **_CLOSE},)
        extensions = self.scope.get("extensions") or ()
        if self.answer == "not started" and "websocket.http.response" in extensions:
            # A handshake: without the denial extension the server answers a close with 403.
            messages = tuple({**m, "type": f"websocket.{m['type']}"} for m in unavailable())
        try:
            for message in messages:
                await self._send(message)
        except Exception as exc:  # the server has closed it first
            log.detail("%s was closed already: %r", self.path, exc)
        self.answer = "complete"


def _as_ours(message: Message) -> Message:
    """Return a server's disconnect with the code of our close, unless it has the client's code.

    uvicorn's `websockets` protocol gives 1005 after a close by the app.
    """
    if message["type"] == "websocket.disconnect" and message.get("code") in (None, 1005, 1006):
        return {**message, **_CLOSE}
    return message
