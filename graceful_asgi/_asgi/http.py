"""An HTTP request in flight and its response, and how a drain closes an event stream."""

from __future__ import annotations

import inspect
from inspect import CORO_CLOSED
from typing import TYPE_CHECKING, ClassVar, Final

import anyio

from .. import log
from .._core.server_adapter import PassiveAdapter
from .._core.unavailable import unavailable
from ..errors import ClosedError, GracefulError
from . import connection_header
from .event_stream import EventStream, is_event_stream, reconnects
from .exchange import Exchange, marked_as_coroutine_function

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._core.work import CloseWhen
    from ..report import Kind
    from ..types import Message, Scope
    from .exchange import Answer

LOOK_PERIOD: Final = 0.1
"""Seconds between two looks at a message that a slow client has not taken yet."""

LOOK_COST: Final = 0.0002
"""Seconds that are added for each piece of work in flight. Such a look takes some 13 us. If ten
thousand clients are slow, each is looked at every two seconds, and the others are served."""

_BODIES: Final = frozenset(
    ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")
)
"""The messages that send the body, or a part of it; the last two are of ASGI extensions."""

_LAST: Final = _BODIES | {"http.response.trailers"}


class HTTPExchange(Exchange):
    """An HTTP request and its response."""

    __slots__ = ()

    kind: ClassVar[Kind] = "http"
    size: int = 0
    """Bytes of the body before the last message."""
    before: bytes = b"\n\n"
    """The end of the body before the last message: after a whole event, if nothing was sent yet."""
    _answer: Answer | None = None
    """The state of the answer, once the drain knows it better than the messages show; else None."""
    _body: StreamedBody | None = None
    """The framing of the body, once a drain has asked for it; else None."""
    _body_read: bool = False

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def answer(self) -> Answer:
        if self._answer is not None:
            return self._answer
        if self.start is None or self.answered_for_app:
            return "not started"
        is_complete = self.closed is None and _ends_body(self.last) and not self._is_sending
        return "complete" if is_complete else "started"

    @property
    def _is_sending(self) -> bool:
        """True while the server has not taken the last message: its client reads slowly.

        An awaitable that is no coroutine shows no state. Servers that have such take a message as
        they are called.
        """
        sending = self.sending
        return inspect.iscoroutine(sending) and inspect.getcoroutinestate(sending) != CORO_CLOSED

    @property
    def is_server_error(self) -> bool:
        if self._response_start.get("status", 200) >= 500:
            return True
        # The app raised, or returned early: the server answers 500 in its place, or cuts the
        # answer. If the client went first and the app knows, nobody was to be answered.
        return self.answer in ("not started", "started") and not self.aware

    @property
    def _response_start(self) -> Message:
        """The app's `http.response.start`. It is in `last` if another message came before it."""
        if self.last is not None and self.last["type"] == "http.response.start":
            return self.last
        return self.start or {}

    def before_cancel(self) -> None:
        if self.answer == "started":  # a coroutine that was cancelled looks like one that has ended
            self._answer = "started"

    @property
    def progress(self) -> str:
        return f"response {self.answer}"

    @property
    def sent(self) -> int:
        return self.size + len(_body_of(self.last))

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            if not message.get("more_body", False):
                self._body_read = True
        elif message["type"] == "http.disconnect":
            # The server sends this as well once the response is complete, even if it was the drain
            # that completed it (ASGI specification, "Disconnect - receive event").
            self.aware = True
        return message

    @marked_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        # While serving the messages are only kept. A drain finds out from them, and from the
        # server's awaitable, how far the answer is. No function is called here, and no coroutine
        # made, because that would be a third of the middleware's whole cost.
        if self.start is None:
            self.start = message
        else:
            if (earlier := self.last) is not None:
                body = earlier.get("body", b"")
                self.size += len(body)
                # The longest end of an event has four bytes: CR LF CR LF.
                self.before = (self.before + body[-4:])[-4:]
                if earlier["type"] == "http.response.start":  # another message came before it
                    self.start = earlier
            self.last = message
        if not self.drainer.serving:
            return self._send_while_draining(message)
        self.sending = sending = self._send(message)
        return sending

    def _send_while_draining(self, message: Message) -> Awaitable[None]:
        self.sending = None
        kind = message["type"]
        if kind == "http.response.start":
            return self._start_while_draining(message)
        if kind in _BODIES:
            if message.get("more_body"):
                return self._send_piece(message)
            return self._complete(message)
        return self._send(message)

    def _start_while_draining(self, message: Message) -> Awaitable[None]:
        if self.answered_for_app:
            return _send_nothing()
        self.drainer.close_schedule.add(self)
        if self._streamed_body().events is not None and not self._is_passive:
            from .._servers.sse_starlette import keep_event_streams_open  # loaded at the startup

            # The app may have imported sse-starlette for this very response. sse-starlette looks at
            # `should_exit` for the first time after this message.
            keep_event_streams_open()
        if self._may_say_close(message):
            message = connection_header.with_close(message)
        return self._send(message)

    def _may_say_close(self, message: Message) -> bool:
        # If the connection closes while the client still sends its body, the client may get a
        # broken pipe before it reads the answer. The next response says close instead.
        body_pending = not self._body_read and connection_header.has_body(self.scope["headers"])
        return connection_header.closes(self.scope, message) and not body_pending

    def _send_piece(self, message: Message) -> Awaitable[None]:
        if self.answered_for_app:
            return _send_nothing()
        body = self._streamed_body(self.before)
        if body.events is None:
            return self._send(message)
        return self._send_event(message, body, body.events)

    async def _complete(self, message: Message) -> None:
        if self.closed or self.answered_for_app:
            return self._check_late(message)
        self.sending = sending = self._send(message)
        try:
            await sending  # waits for a slow reader
        except BaseException:
            self._answer = "started"  # the answer is cut
            raise
        self._answer = "complete"
        if self._body is not None:
            self._body.note_end()

    # An event stream, and its close

    def _streamed_body(self, tail: bytes | None = None) -> StreamedBody:
        """Return the body, as a drain sees it. *tail* is its end, where that is not `last`."""
        number = self.drainer.state.number
        if self._body is None:
            self._body = StreamedBody(self.scope, self._response_start)
        if self._body.drain != number:  # what was sent before this drain was only kept
            end = self.before + bytes(_body_of(self.last)[-4:]) if tail is None else tail
            self._body.look(number, end[-4:])
        return self._body

    @property
    def close_when(self) -> CloseWhen:
        if self.answer != "started" or (body := self._streamed_body()).events is None:
            return "never"
        if self.may_close:
            return "on drain"
        if not body.reconnects:
            return "never"
        return "on drain" if self.drainer.policy.event_streams == "close" else "at deadline"

    async def _send_event(self, message: Message, body: StreamedBody, events: EventStream) -> None:
        if self.closed:
            return self._check_late(message)
        tail = events.begins(message.get("body", b""))
        try:
            await self._send(message)
        except BaseException:
            events.failed(tail)
            raise
        events.passed(tail)
        if body.closers:
            await self._close_between_events(self.close_when)

    def _check_late(self, message: Message) -> None:
        """Ignore an end that the app sends after its response was completed; raise for a piece."""
        self.aware = True
        if self.closed and (message.get("body") or message.get("more_body", False)):
            raise ClosedError(f"{self.method} {self.path} is closed: the server drains")

    async def close(self, patience_end: float, *, hurried: bool = False) -> None:
        # If an event is half out, only `send` sees its end. So `send` closes the stream then, and
        # this waits until it has done so or the app has ended the stream.
        body = self._streamed_body()
        body.closers += 1
        try:
            await self.close_now()
            # The awaitable of a message that was sent before the drain belongs to the app: only its
            # state shows that the client has taken the message.
            while self._is_sending:
                await anyio.sleep(LOOK_PERIOD + len(self.drainer.in_flight) * LOOK_COST)
                await self.close_now()
            if self.answer == "started":
                await body.wait_end()
        finally:
            body.closers -= 1

    async def close_now(self) -> None:
        await self._close_between_events(self.close_when)

    async def _close_between_events(self, when: CloseWhen) -> None:
        """Complete the body in the app's place, unless an event is half sent."""
        body = self._streamed_body()
        if body.events is None or when == "never" or self.closed:
            return
        if self._is_sending or not body.events.between_events:
            return
        from .._servers.connections import close_after_answer  # loaded at the startup

        body.closing = anyio.Event()
        close_after_answer(self._receive)
        with self._closing(when):
            try:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            except Exception as exc:
                log.detail("%s %s: the client has gone: %r", self.method, self.path, exc)
            finally:
                body.closing.set()
            self._answer = "complete"
            body.note_end()

    async def settle(self) -> None:
        if self.cancelled and self.is_unanswered:  # the app takes its cancellation for an end
            return await self.conclude()
        # The app ended its event stream because of the drain and returned without an end of the
        # body, as sse-starlette before 3.2 does. For an EventSource that is the end of the stream.
        is_closing = self._body is not None and self._body.is_closing
        if self.close_when == "never" and not is_closing:
            return
        with anyio.CancelScope() as cancel_scope:
            if self.task is None:  # the cancel scope around the app has been left by now
                self.cancel_with(cancel_scope)
            # With a slow reader the request is in flight until that has got the end.
            if self._body is not None and self._body.closing is not None:
                await self._body.closing.wait()
            await self._close_between_events("on drain")

    @property
    def _is_passive(self) -> bool:
        """True if the server is one that this package does not know."""
        return isinstance(self.drainer.adapter, PassiveAdapter)

    # In the app's place

    async def refuse(self) -> None:
        start, body = unavailable()
        await self.send(start)
        await self.send(body)
        self._answer = "refused"

    async def conclude(self) -> None:
        await self.close_now()
        if self.answer == "not started":
            await self._send_unavailable()
        elif self.cut and self._is_passive:
            # An unknown server resets the connection only if the app raises.
            raise GracefulError(f"{self.method} {self.path} was cut at its deadline")

    async def _send_unavailable(self) -> None:
        start, body = unavailable()
        if connection_header.closes(self.scope, start):
            # Even if the request's body is not read: the process ends.
            start = connection_header.with_close(start)
        try:
            await self._send(start)
            await self._send(body)
        except OSError as exc:
            log.detail("%s %s: the client has gone: %r", self.method, self.path, exc)
        self._answer = "complete"


class StreamedBody:
    """A response's body that comes in pieces.

    Attributes:
        drain: the number of the last drain that has looked at the body.
        events: the events so far; None if it is not an event stream that may be closed.
        reconnects: True if the client connects again when the stream ends.
        closers: how many calls of `close` wait for the end of an event.
        closing: None until the drain completes the body; set when the server has taken the end.
    """

    __slots__ = ("_ended", "closers", "closing", "drain", "events", "reconnects")

    def __init__(self, scope: Scope, start: Message) -> None:
        self.closers = self.drain = 0
        self.events = EventStream() if is_event_stream(start) else None
        self.reconnects = self.events is not None and reconnects(scope)
        self.closing: anyio.Event | None = None
        self._ended: anyio.Event | None = None

    def look(self, drain: int, tail: bytes) -> None:
        """Begin to follow the events. *tail* is the end of what was sent before."""
        self.drain = drain
        if self.events is not None:
            self.events = EventStream(tail)

    @property
    def is_closing(self) -> bool:
        """True while the server has not taken the end that the drain gives the body."""
        return self.closing is not None and not self.closing.is_set()

    async def wait_end(self) -> None:
        """Wait until the body is complete."""
        if self._ended is None:
            self._ended = anyio.Event()
        await self._ended.wait()

    def note_end(self) -> None:
        """Note that the body is complete."""
        if self._ended is not None:
            self._ended.set()


def _ends_body(message: Message | None) -> bool:
    return message is not None and message["type"] in _LAST and not message.get("more_body")


def _body_of(message: Message | None) -> bytes:
    body: bytes = b"" if message is None else message.get("body", b"")
    return body


async def _send_nothing() -> None:
    """Drop what the app sends after it was answered for."""
