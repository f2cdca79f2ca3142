"""An HTTP request in flight and its response, an event stream's end included."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar, Final

import anyio

from .. import log
from .._core.server import PassiveAdapter
from ..errors import ClosedError, GracefulError
from ..event_loop import Interrupted, Interruptible
from . import connection_header
from .event_stream import EventStream, is_event_stream
from .exchange import SERVING, Exchange, unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._core.work import CloseWhen
    from ..report import Kind, Outcome
    from ..types import Message

_BODIES: Final = frozenset(
    ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")
)

NOTICE_PERIOD: Final = 0.5
"""Seconds for an app to hear that its response was ended. One that neither sends nor receives in
that time has nothing to hear it by but a cancellation."""


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

    @property
    def sent(self) -> int:
        last: Message = getattr(self, "_last", {})
        earlier: int = getattr(self, "_sent", 0)
        return earlier + len(last.get("body", b""))

    async def receive(self) -> Message:
        if self._body_read:
            return await self._listen()
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._body_read = True
        elif message["type"] == "http.disconnect":
            self._note_told()
        return message

    async def _listen(self) -> Message:
        """Pass on what comes after the body, which is the disconnect; ours, too."""
        message: Message = {"type": "http.disconnect"}
        if not self.was_closed:
            self._listening = Interruptible()
            with contextlib.suppress(Interrupted):
                message = await self._listening.wait(self._receive())
        if message["type"] == "http.disconnect":
            self._note_told()
        return message

    def _note_told(self) -> None:
        if self._events is not None:
            self._events.told = True

    def send(self, message: Message) -> Awaitable[None]:
        # Returns the server's own awaitable: a coroutine around it would be half of our cost.
        kind = message["type"]
        if kind == "http.response.start":
            self.answer = "started"
            self._start = message
            if self.drainer.phase is not SERVING:
                self.drainer.close_schedule.add(self)
                if self._may_say_close(message):
                    message = connection_header.with_close(message)
        elif kind in _BODIES:
            if not message.get("more_body", False):
                return self._complete(message)
            self._sent = getattr(self, "_sent", 0) + len(message.get("body", b""))
            if (events := self._event_stream()) is not None:
                return self._send_event(message, events)
        return self._send(message)

    async def _complete(self, message: Message) -> None:
        if self.was_closed:
            return self._too_late(message)
        self._last = message
        await self._send(message)  # waits for a slow reader: cancelled here, the answer is cut
        self.answer = "complete"

    def _may_say_close(self, message: Message) -> bool:
        # An early answer plus a close, with the body still on its way, breaks the client's pipe
        # before it has read the answer. The next response on the connection says it instead.
        body_pending = not self._body_read and connection_header.has_body(self.scope["headers"])
        return connection_header.closes(self.scope, message) and not body_pending

    # An event stream, and its end

    def _event_stream(self) -> EventStream | None:
        """Return the state of the response's events; None where it is none that can be ended."""
        start, self._start = self._start, None
        if start is not None and is_event_stream(start):
            self._events = EventStream()
        return self._events

    @property
    def close_when(self) -> CloseWhen:
        if self.answer != "started" or self._event_stream() is None:
            return "never"
        on_drain = self.drainer.policy.event_streams == "close" or self.may_close
        return "on drain" if on_drain else "at deadline"

    @property
    def was_closed(self) -> bool:
        return self._events is not None and self._events.closed is not None

    @property
    def outcome(self) -> Outcome:
        events = self._events
        if events is None or not events.closed:
            return super().outcome
        if self.cut:
            return "aborted"
        # Cancelled because it could not hear of the end, or because it had, and stayed?
        stayed = self.cancelled and events.told
        return "cancelled" if events.closed == "at deadline" or stayed else "completed"

    async def _send_event(self, message: Message, events: EventStream) -> None:
        if events.closed:
            return self._too_late(message)
        tail = events.begins(message.get("body", b""))
        try:
            await self._send(message)
        except BaseException:
            events.failed(tail)
            raise
        events.passed(tail)
        if self.drainer.phase is not SERVING and self.drainer.close_schedule.is_due(self):
            await self.close()

    def _too_late(self, message: Message) -> None:
        self._note_told()
        if message.get("body") or message.get("more_body", False):
            raise ClosedError(f"{self.method} {self.path} has been ended: the server drains")

    async def close(self) -> None:
        """Complete the body if no event is half out. Else the send that completes it does."""
        await self._complete_events(self.close_when)

    async def settle(self) -> None:
        # sse-starlette ends its streams by itself when uvicorn is told to stop, the way it does for
        # a client that has gone: without an end of the body.
        if self.close_when == "never" or self._events is None:
            return
        with anyio.CancelScope() as cancel_scope:
            if self.task is None:  # what it had to be cancelled by has been left by now
                self.cancel_with(cancel_scope)
            if self._events.completed is not None:  # a slow reader: in flight until it has the end
                await self._events.completed.wait()
            await self._complete_events("on drain")

    async def _complete_events(self, ending: CloseWhen) -> None:
        events = self._events
        if ending == "never" or events is None or events.closed or not events.between_events:
            return
        # Before the await: from here on the app's own go no further.
        events.closed, events.completed = ending, anyio.Event()
        try:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as exc:
            log.detail("%s %s: the client has gone: %r", self.method, self.path, exc)
        except BaseException:
            if self.drainer.waiting:  # the app has given up on the send that this is a part of
                events.closed = None
            raise
        finally:
            events.completed.set()
        self.answer = "complete"
        self.drainer.close_schedule.start_soon(self._tell)

    async def _tell(self) -> None:
        """See to it that the app hears of the end: as of a client's leaving, or by cancellation."""
        if self._listening is not None:
            self._listening.interrupt()
        await anyio.sleep(NOTICE_PERIOD)
        if self._events is not None and not self._events.told:
            self._in_flight.cancel_only([self])

    # In the app's place

    async def refuse(self) -> None:
        start, body = unavailable()
        await self.send(start)
        await self.send(body)
        self.answer = "refused"

    async def conclude(self) -> None:
        await self.close()
        if self.cut and isinstance(self.drainer.adapter, PassiveAdapter):
            # An unknown server cuts the answer only if it sees that the app has failed.
            raise GracefulError(f"{self.method} {self.path} was cut at its deadline")
        if self.answer == "not started":
            start, body = unavailable()
            if connection_header.closes(self.scope, start):
                start = connection_header.with_close(
                    start
                )  # whatever is unread: the process is going away
            try:
                await self._send(start)
                await self._send(body)
            except OSError as exc:
                log.detail("%s %s: the client has gone: %r", self.method, self.path, exc)
            self.answer = "complete"
