"""`Connection: close`: which responses carry it, and what becomes of the app's own header."""

from __future__ import annotations

import pytest

from graceful_asgi._asgi import connection_header

Headers = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("version", "status", "closes"),
    [
        ("1.0", 200, True),
        ("1.1", 200, True),
        ("1.1", 204, True),
        ("1.1", 304, True),
        ("1.1", 500, True),
        ("1.1", 100, False),
        ("1.1", 101, False),
        ("1.1", 103, False),
        ("1.1", 199, False),
        ("2", 200, False),
        ("2.0", 200, False),
        ("3", 200, False),
    ],
)
def test_final_answers_of_http_1_close_and_no_others(
    version: str, status: int, closes: bool
) -> None:
    assert connection_header.closes({"http_version": version}, {"status": status}) is closes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], [(b"connection", b"close")]),
        ([(b"connection", b"keep-alive")], [(b"connection", b"close")]),
        ([(b"Connection", b"Keep-Alive")], [(b"connection", b"close")]),
        ([(b"connection", b"close")], [(b"connection", b"close")]),
        ([(b"connection", b"upgrade")], [(b"connection", b"close, upgrade")]),
        (
            [(b"connection", b"keep-alive, Upgrade ,, x-trace")],
            [(b"connection", b"close, Upgrade, x-trace")],
        ),
        (
            [(b"connection", b"upgrade"), (b"connection", b"keep-alive, te")],
            [(b"connection", b"close, upgrade, te")],
        ),
        ([(b"keep-alive", b"timeout=5")], [(b"connection", b"close")]),
        (
            [(b"x-a", b"1"), (b"connection", b"keep-alive"), (b"x-a", b"2")],
            [(b"x-a", b"1"), (b"x-a", b"2"), (b"connection", b"close")],
        ),
    ],
)
def test_close_takes_the_place_of_the_apps_choice_and_leaves_the_rest(
    given: Headers, expected: Headers
) -> None:
    message = {"type": "http.response.start", "status": 200, "headers": given, "trailers": True}
    before = list(given)
    assert connection_header.with_close(message) == {**message, "headers": expected}
    assert message["headers"] == before, "the app's message is the app's"


def test_a_message_without_headers_gets_its_first() -> None:
    assert connection_header.with_close({"status": 200})["headers"] == [(b"connection", b"close")]


@pytest.mark.parametrize(
    ("headers", "has_body"),
    [
        ([], False),
        ([(b"content-length", b"0")], False),
        ([(b"content-length", b" 0 ")], False),
        ([(b"content-length", b"1")], True),
        ([(b"transfer-encoding", b"chunked")], True),
        ([(b"content-type", b"text/plain"), (b"content-length", b"10")], True),
    ],
)
def test_a_request_has_a_body_when_its_headers_say_so(headers: Headers, has_body: bool) -> None:
    assert connection_header.has_body(headers) is has_body
