"""One HTTP/2 connection without TLS, and what became of each request on it. No counting.

Written on frames rather than on a whole implementation: that of the `h2` package takes a GOAWAY for
the end of the connection, and it is what a server that stops in order says first (RFC 9113, 6.8).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from hpack import Decoder, Encoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from ..result.counts import LossKind, Lost, Retryable, Unsent
from .answer import Body, HttpAnswer, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .http1 import HttpConnection
    from .plan import Endpoint, Header

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WIDEST: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535
"""Bytes of bodies that each side takes before it says how many more (RFC 9113, 6.9.2)."""
LONGEST_BODY: Final = _FIRST_WINDOW // 2
"""A body is written in one step, so there has to be room for the whole of it. A server may give
more room only when half of it has been used, as those built on h2 and on nghttp2 do."""
_LARGEST_FRAME: Final = 16_384
_FRAME_HEAD: Final = 9
_REFUSED: Final = 7
"""REFUSED_STREAM: the server has not looked at the request (RFC 9113, 8.7)."""


class _Stream:
    def __init__(self, number: int, method: str) -> None:
        self.outcome: asyncio.Future[HttpAnswer | Lost | Retryable] = asyncio.Future()
        self.head: HttpAnswer | None = None
        self.body = Body()
        self._number, self._method = number, method
        self._length: int | None = None

    def begin(self, head: HttpAnswer, length: bytes | None) -> None:
        """Take the head of the answer, and its Content-Length.

        Raises `ValueError` if that is no number.
        """
        self.head = head
        # The answer to a HEAD, and a 304, have the length of a body that is not sent.
        if length is not None and self._method != "HEAD" and head.status != 304:
            self._length = int(length)

    def complete(self, head: HttpAnswer) -> None:
        """Note that the server has ended the answer, which has to have its length by then."""
        found = self.body.of(head)
        if self._length is None or found.length == self._length:
            return self.end(found)
        # A client has to take such an answer for an error (RFC 9113, 8.1.1).
        kind: LossKind = "cut body" if found.length < self._length else "bad reply"
        self.end(Lost(kind, self._number > 1))

    def end(self, outcome: HttpAnswer | Lost | Retryable) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Http2Client:
    """Requests on one connection, many at a time. Make one with `open_http2`."""

    def __init__(self, connection: HttpConnection) -> None:
        self.connection: Final = connection
        self._encoder, self._decoder = Encoder(), Decoder()
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._last: int | None = None
        self._window = _FIRST_WINDOW
        """Bytes that the server takes now in the bodies of all requests (RFC 9113, 6.9)."""
        self._changed = asyncio.Event()
        self._has_ended = False
        self._block = bytearray()
        self._rest = bytearray()

    @property
    def is_usable(self) -> bool:
        """Return True while a new request may be sent on it."""
        return self._last is None and not self._has_ended and not self.connection.has_ended()

    async def has_room(self, length: int) -> bool:
        """Wait until a request with a body of that length may be sent. Return False if none may."""
        while self.is_usable and self._window < length:
            self._changed.clear()
            await self._changed.wait()
        return self.is_usable

    def begin(self) -> Unsent | None:
        """Write the preface. None: it is on its way."""
        settings = SettingsFrame(
            settings={SettingsFrame.ENABLE_PUSH: 0, SettingsFrame.INITIAL_WINDOW_SIZE: _WIDEST}
        )
        window = WindowUpdateFrame(0, window_increment=_WIDEST - _FIRST_WINDOW)
        return self.connection.write_now(_PREFACE + settings.serialize() + window.serialize())

    def send(self, endpoint: Endpoint, headers: list[Header], authority: str) -> int | Unsent:
        """Write a request in one step and without waiting. Return the number of its stream.

        A Host among the headers takes the place of `authority`. A request that has both is no right
        one if they differ (RFC 9113, 8.3.1).
        """
        number = self._next
        lowered = [(name.lower(), value) for name, value in headers]
        fields = [
            (":method", endpoint.method),
            (":scheme", "http"),
            (":authority", dict(lowered).get("host", authority)),
            (":path", endpoint.path),
            *(field for field in lowered if field[0] != "host"),
        ]
        head = HeadersFrame(number, data=self._encoder.encode(fields), flags=["END_HEADERS"])
        if not endpoint.body:
            head.flags.add("END_STREAM")
        pieces = [head.serialize(), *_data_frames(number, endpoint.body)]
        self._next += 2
        self._window -= len(endpoint.body)
        unsent = self.connection.write_now(b"".join(pieces))
        if unsent is not None:
            return unsent
        self._streams[number] = _Stream(number, endpoint.method)
        return number

    async def receive(self, number: int, *, within: float) -> HttpAnswer | Lost | Retryable:
        """Wait for the answer to a request, and return it, or how the request was lost."""
        stream = self._streams[number]
        try:
            return await asyncio.wait_for(asyncio.shield(stream.outcome), within)
        except (TimeoutError, asyncio.TimeoutError):
            return Lost("timeout", number > 1)
        finally:
            self._streams.pop(number, None)

    async def read(self) -> None:
        """Read until the connection has ended; then every request still open on it is lost."""
        silent: LossKind | None = "empty reply"
        try:
            while data := await self.connection.read():
                self._rest += data
                for frame in self._frames():
                    self._take(frame)
        except TimeoutError:
            silent = "timeout"
        except OSError:
            silent = None
        except (HyperframeError, HPACKError, KeyError, ValueError):
            silent = "bad reply"
        finally:
            self._has_ended = True
            self._changed.set()
        for number, stream in self._streams.items():
            reset: LossKind = "reset on reuse" if number > 1 else "reset on fresh"
            kind = (
                "cut body" if stream.head is not None and silent != "timeout" else silent or reset
            )
            stream.end(Lost(kind, number > 1))

    def _frames(self) -> Iterator[Frame]:
        while len(self._rest) >= _FRAME_HEAD:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._rest[:_FRAME_HEAD])))
            end = _FRAME_HEAD + length
            if len(self._rest) < end:
                return
            frame.parse_body(memoryview(bytes(self._rest[_FRAME_HEAD:end])))
            del self._rest[:end]
            yield frame

    def _take(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream_id)
        if isinstance(frame, SettingsFrame):
            self._settings(frame)
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.connection.write_now(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())
        elif isinstance(frame, WindowUpdateFrame) and not frame.stream_id:
            self._window += frame.window_increment
            self._changed.set()
        elif isinstance(frame, GoAwayFrame):
            self._changed.set()
            self._last = frame.last_stream_id
            for number, each in self._streams.items():
                if number > frame.last_stream_id:
                    each.end(Retryable())
        elif isinstance(frame, HeadersFrame | ContinuationFrame):
            # Decoded even for a stream that is gone: the table of the decoder depends on it.
            self._block += frame.data
            if "END_HEADERS" in frame.flags:
                fields = self._decoder.decode(bytes(self._block), raw=True)
                self._block.clear()
                self._headers(stream, fields)
        elif isinstance(frame, RstStreamFrame) and stream is not None:
            cut: LossKind = "reset on reuse" if stream.head is None else "cut body"
            is_refused = frame.error_code == _REFUSED
            stream.end(Retryable() if is_refused else Lost(cut, frame.stream_id > 1))
        elif isinstance(frame, DataFrame) and stream is not None:
            stream.body.add(frame.data)
        if "END_STREAM" in frame.flags and stream is not None and stream.head is not None:
            stream.complete(stream.head)

    def _settings(self, frame: SettingsFrame) -> None:
        if "ACK" in frame.flags:
            return
        size = frame.settings.get(SettingsFrame.HEADER_TABLE_SIZE)
        if size is not None:
            # Less than the server allows is right, too (RFC 7541, 4.2); both begin with 4096.
            self._encoder.header_table_size = min(size, 4096)
        self.connection.write_now(SettingsFrame(flags=["ACK"]).serialize())

    def _headers(self, stream: _Stream | None, fields: Any) -> None:
        if stream is None:
            return
        found = {bytes(name): bytes(value) for name, value in fields}
        status = int(found.get(b":status", b"0") or 0)
        if status >= 200:  # not an interim answer, and not the trailers, which have no status
            stream.begin(answer(status, True, found.items()), found.get(b"content-length"))


async def speaks_http2(connection: HttpConnection, *, within: float) -> bool:
    """Return True if the server answers HTTP/2's preface as a server of HTTP/2 does.

    The first frame of each side has to be its settings (RFC 9113, 3.4).
    """
    data = b""
    try:
        if Http2Client(connection).begin() is None:
            with connection.give_up_after(within):
                while len(data) < _FRAME_HEAD and (more := await connection.read()):
                    data += more
        frame, _ = Frame.parse_frame_header(memoryview(data[:_FRAME_HEAD]))
    except (OSError, HyperframeError):
        return False
    return isinstance(frame, SettingsFrame)


def _data_frames(number: int, body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), _LARGEST_FRAME):
        frame = DataFrame(number, body[at : at + _LARGEST_FRAME])
        if at + _LARGEST_FRAME >= len(body):
            frame.flags.add("END_STREAM")
        yield frame.serialize()
