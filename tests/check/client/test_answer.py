"""Answers that are recognised without h11 are read as by h11; all others are left to h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from check.client.adversary import (
    CUT_CHUNKED,
    CUT_HEAD,
    CUT_LENGTH,
    NO_HTTP,
    OK,
    OK_AND_CLOSE,
    OK_CHUNKED,
    OK_HTTP_10,
    OK_UNTIL_EOF,
)
from graceful_asgi._check.client.answer import KEPT, Body, HttpAnswer, answer, recognise


def ask_h11(data: bytes) -> tuple[HttpAnswer, int] | None:
    """The same answer, read by h11; None: incomplete, or no HTTP."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "server")]))
    http.receive_data(data)
    head = HttpAnswer(0, True)
    body = Body()
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError:
            return None
        if isinstance(event, h11.Response):
            head = answer(event.status_code, True, event.headers)
        elif isinstance(event, h11.Data):
            body.add(event.data)
        elif isinstance(event, h11.EndOfMessage):
            end = len(data) - len(http.trailing_data[0])
            whole = body.of(head._replace(reusable=http.their_state is h11.DONE))
            return whole, end
        elif event is h11.NEED_DATA:
            return None


@pytest.mark.parametrize("data", [OK, OK_AND_CLOSE])
@pytest.mark.parametrize("rest", [b"", OK, b"garbage"])
def test_a_plain_answer_is_recognised_with_its_end(data: bytes, rest: bytes) -> None:
    expected = (HttpAnswer(200, data is OK, body=b"ok", length=2), len(data))
    assert recognise(data + rest) == ask_h11(data + rest) == expected


@pytest.mark.parametrize(
    "data",
    [
        *(b"", CUT_HEAD, CUT_LENGTH, CUT_CHUNKED, NO_HTTP),  # not complete, or not HTTP
        *(OK_CHUNKED, OK_HTTP_10, OK_UNTIL_EOF),  # complete, and not plain
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n folded: yes\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    ],
)
def test_of_anything_else_nothing_is_said(data: bytes) -> None:
    assert recognise(data) is None


TOKENS = [
    *(b"HTTP/1.1 ", b"HTTP/1.0 ", b"200 OK", b"503 No", b"204 No", b"\r\n", b"\n", b"\r\n\r\n"),
    *(b"Content-Length: ", b"content-length:", b"0", b"2", b"02", b"2, 2", b" ", b"\t", b"\x00"),
    *(b"Connection: ", b"close", b"Keep-Alive", b", ", b"Transfer-Encoding: chunked", b"X-A: b"),
    *(b"ok", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\xff", b":"),
]


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map(b"".join))
def test_it_never_says_anything_but_what_h11_says(data: bytes) -> None:
    found = recognise(data)
    if found is not None:
        assert found == ask_h11(data)


@given(
    status=st.sampled_from([200, 201, 302, 404, 500, 503]),
    fields=st.lists(
        st.sampled_from(
            [
                *(b"Connection: close", b"connection:  Close ", b"Connection: keep-alive"),
                *(b"Date: now", b"content-TYPE: Text/HTML; charset=UTF-8", b"Retry-After: 1"),
                *(b"Content-Encoding: GZip", b"Location: /elsewhere"),
            ]
        ),
        max_size=3,
    ),
    body=st.binary(max_size=20),
    cut=st.integers(0, 200),
)
def test_plain_answers_are_recognised_just_when_they_are_complete(
    status: int, fields: list[bytes], body: bytes, cut: int
) -> None:
    head = [b"HTTP/1.1 %d Because" % status, b"Content-Length: %d" % len(body), *fields]
    data = b"\r\n".join(head) + b"\r\n\r\n" + body
    assert recognise(data) == ask_h11(data) is not None
    if cut < len(data):
        assert recognise(data[:cut]) is None


def test_of_a_very_long_body_only_its_length_and_its_digest_are_kept() -> None:
    def whole(*pieces: bytes) -> HttpAnswer:
        body = Body()
        for piece in pieces:
            body.add(piece)
        return body.of(HttpAnswer(200, True))

    one, same, other = (
        whole(b"x" * KEPT, b"y"),
        whole(b"x", b"x" * (KEPT - 1) + b"y"),
        whole(b"x" * KEPT, b"z"),
    )
    assert one == same != other
    assert (one.body, one.length) == (b"", KEPT + 1)
    assert whole(b"x" * KEPT).body == b"x" * KEPT
