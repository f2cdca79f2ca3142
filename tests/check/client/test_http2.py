"""An HTTP/2 connection as its client sees it, against frames that a server writes one by one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from graceful_asgi._check.client.answer import HttpAnswer
from graceful_asgi._check.client.http1 import connect
from graceful_asgi._check.client.http2 import Http2Client, speaks_http2
from graceful_asgi._check.client.plan import Endpoint
from graceful_asgi._check.result.counts import Lost, Retryable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from graceful_asgi._check.result.counts import LossKind

pytestmark = pytest.mark.anyio

ENDPOINT = Endpoint("--path", "GET", "/")
SETTINGS = SettingsFrame().serialize()


def answer(
    stream: int, body: bytes = b"ok", status: str = "200", length: str | None = None
) -> bytes:
    fields = [(":status", status), ("content-type", "text/plain")]
    if length is not None:
        fields.append(("content-length", length))
    head = Encoder().encode(fields, huffman=False)
    first = HeadersFrame(stream, head, flags=["END_HEADERS"]).serialize()
    return first + DataFrame(stream, body, flags=["END_STREAM"]).serialize()


@asynccontextmanager
async def connected(*writes: bytes, end: str = "") -> AsyncIterator[Http2Client]:
    """Connect to a server that writes these frames once it has read three requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        data = b""
        while data.count(b"\x00\x00\x00\x05") + data.count(b"\x01\x05\x00\x00\x00") < 3:
            if not (more := await reader.read(4096)):
                break
            data += more
        for write in writes:
            writer.write(write)
        if end == "reset":
            writer.transport.abort()
        elif end == "end":
            writer.close()
        else:
            await reader.read()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        connection = await connect("127.0.0.1", server.sockets[0].getsockname()[1], within=5.0)
        http2 = Http2Client(connection)
        assert http2.begin() is None
        reading = asyncio.ensure_future(http2.read())
        try:
            yield http2
        finally:
            connection.give_up()
            await reading
            connection.close()


async def ask_three(
    http2: Http2Client, endpoint: Endpoint = ENDPOINT
) -> list[HttpAnswer | Lost | Retryable]:
    streams = [http2.send(endpoint, [], "server") for _ in range(3)]
    assert streams == [1, 3, 5]
    return await asyncio.gather(
        *(http2.receive(stream, within=5.0) for stream in streams if isinstance(stream, int))
    )


async def test_answers_may_come_in_any_order() -> None:
    async with connected(answer(5, b"5") + answer(1, b"1"), answer(3, b"3")) as http2:
        found = await ask_three(http2)
    assert [each.body for each in found if isinstance(each, HttpAnswer)] == [b"1", b"3", b"5"]


async def test_above_the_last_stream_of_a_goaway_a_request_may_be_sent_again() -> None:
    goaway = GoAwayFrame(0, last_stream_id=3).serialize()
    async with connected(goaway + answer(1), answer(3)) as http2:
        found = await ask_three(http2)
        assert not http2.is_usable
    assert [type(each) for each in found] == [HttpAnswer, HttpAnswer, Retryable]


async def test_a_refused_stream_may_be_sent_again_and_another_reset_is_a_loss() -> None:
    refused = RstStreamFrame(1, error_code=7).serialize()
    cancelled = RstStreamFrame(3, error_code=8).serialize()
    async with connected(refused + cancelled + answer(5)) as http2:
        found = await ask_three(http2)
    assert found[0] == Retryable()
    assert found[1] == Lost("reset on reuse", reused=True)
    assert isinstance(found[2], HttpAnswer)


@pytest.mark.parametrize("end", ["end", "reset"])
async def test_what_a_goaway_has_promised_and_does_not_come_is_lost(end: str) -> None:
    goaway = GoAwayFrame(0, last_stream_id=5).serialize()
    async with connected(goaway + answer(1), end=end) as http2:
        found = await ask_three(http2)
    assert all(isinstance(each, Lost) for each in found[1:])


async def test_an_answer_without_its_end_is_cut() -> None:
    head = answer(1)[: -len(DataFrame(1, b"ok").serialize())]
    async with connected(head, end="end") as http2:
        found = await ask_three(http2)
    assert found[0] == Lost("cut body", reused=False)
    assert found[1] == Lost("empty reply", reused=True)


@pytest.mark.parametrize(("length", "kind"), [("3", "cut body"), ("1", "bad reply")])
async def test_an_answer_that_ends_with_another_length_than_its_own_is_lost(
    length: str, kind: LossKind
) -> None:
    """Every client has to take it for an error (RFC 9113, 8.1.1), whatever its body is."""
    async with connected(answer(1, length=length), answer(3, length="2"), answer(5)) as http2:
        found = await ask_three(http2)
    assert found[0] == Lost(kind, reused=False)
    assert [type(each) for each in found[1:]] == [HttpAnswer, HttpAnswer]


async def test_the_length_in_the_answer_to_a_head_is_that_of_a_body_which_is_not_sent() -> None:
    async with connected(answer(1, b"", length="3"), answer(3), answer(5)) as http2:
        found = await ask_three(http2, Endpoint("--path", "HEAD", "/"))
    assert [type(each) for each in found] == [HttpAnswer] * 3


@pytest.mark.parametrize(
    "reply",
    [b"\x00\x00\x01\x07\x00\x00\x00\x00\x00x", answer(1, status="OK")],
    ids=["no frame", "no status"],
)
async def test_what_is_no_answer_in_frames_is_a_bad_reply(reply: bytes) -> None:
    async with connected(reply) as http2:
        found = await ask_three(http2)
    assert found[0] == Lost("bad reply", reused=False)


@pytest.mark.parametrize(
    ("first", "speaks"), [(SETTINGS, True), (b"HTTP/1.1 400 No\r\n\r\n", False)]
)
async def test_a_server_speaks_http2_if_its_first_frame_says_so(first: bytes, speaks: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect("127.0.0.1", port, within=5.0)
        assert await speaks_http2(connection, within=5.0) == speaks
        connection.close()
