"""The right answer is learned from a few: no lie passes, and no honest answer is blamed."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful_asgi._check.client.answer import KEPT, Body, HttpAnswer
from graceful_asgi._check.client.expectation import decoded, expect, shown

if TYPE_CHECKING:
    from collections.abc import Callable


def answer(body: bytes = b"hello", status: int = 200, **fields: Any) -> HttpAnswer:
    whole = Body()
    whole.add(body)
    head = HttpAnswer(status, True, type=b"text/plain")._replace(**fields)
    return whole.of(head)


def faults(right: list[bytes], *later: bytes) -> list[str | None]:
    expectation = expect([answer(body) for body in right])
    return [expectation.fault(answer(body)) for body in later]


def test_where_all_bodies_are_the_same_every_other_is_wrong() -> None:
    assert faults([b"hello"] * 3, b"hello", b"", b"hell", b"oops!", b"hello, world") == [
        *(None, "empty body", "shorter body", "another body", "another body"),
    ]


def test_status_and_type_have_to_be_those_that_were_learned() -> None:
    expectation = expect([answer()] * 3)
    assert expectation.fault(answer(status=404)) == "status 404"
    assert expectation.fault(answer(status=204)) == "status 204"
    assert expectation.fault(answer(type=b"text/html")) == "another type"
    varied = expect([answer(type=b"text/plain"), answer(type=b"text/html")])
    assert varied.fault(answer(type=b"image/png")) is None


def test_numbers_may_differ_where_they_did() -> None:
    right = [b'{"id": "a1-b2", "at": "10:00:01Z"}', b'{"id": "77", "at": "10:00:02Z"}']
    assert faults(
        right,
        b'{"id": "c9", "at": "23:59:59Z"}',
        b'{"id": "c9", "at": "23:59:5',
        b'{"error": "c9"}',
    ) == [None, "shorter body", "another body"]


def test_bodies_that_differ_have_a_common_beginning_and_end() -> None:
    right = [b"<p>apple</p>", b"<p>apricot</p>", b"<p>plum</p>"]
    assert faults(right, b"<p>quince</p>", b"<p>quin", b"Internal Server Error", b"") == [
        *(None, "shorter body", "another body", "empty body"),
    ]


def test_only_part_of_a_word_in_common_is_nothing_in_common() -> None:
    """Three words that begin alike say nothing of the fourth."""
    assert faults([b"apple", b"apricot"], b"plum", b"") == [None, "empty body"]


def test_bodies_that_differ_and_have_one_length_keep_it() -> None:
    assert faults([b"abc", b"xyz"], b"qrs", b"qr", b"qrst") == [
        *(None, "shorter body", "another body"),
    ]


def test_a_body_may_be_empty_only_where_one_was() -> None:
    assert faults([b"", b""], b"", b"oops") == [None, "another body"]
    assert faults([b"", b"some"], b"") == [None]


def test_a_clock_that_stood_still_is_found_out_before_the_signal() -> None:
    expectation = expect([answer(b"it is 10:00")] * 3)
    later = answer(b"it is 10:01")
    assert expectation.fault(later) == "another body"
    wider = expectation.widened(later)
    assert wider is not None
    assert wider.fault(answer(b"it is 10:59")) is None
    assert wider.fault(answer(b"it is over")) == "another body"
    assert expectation.widened(answer(b"it is over")) is None
    assert expectation.widened(answer(b"it is 10:01", status=500)) is None


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress])
def test_an_encoded_body_is_compared_decoded_and_has_to_be_whole(
    encode: Callable[[bytes], bytes],
) -> None:
    def encoded(body: bytes, *, cut: int = 0) -> HttpAnswer:
        data: bytes = encode(body)
        return answer(data[: len(data) - cut], encoding=b"gzip")

    same = expect([encoded(b"hello " * 9)] * 2)
    varied = expect([encoded(b"<a>one</a>"), encoded(b"<a>three</a>")])
    for expectation, body in ((same, b"hello " * 9), (varied, b"<a>four</a>")):
        assert expectation.fault(encoded(body)) is None
        assert expectation.fault(encoded(body, cut=4)) == "damaged body"
    assert same.fault(answer(b"hello " * 9)) is None  # the same, not encoded
    assert same.fault(encoded(b"hello " * 8)) == "another body"


def test_a_gzip_that_differs_in_its_time_alone_is_the_same() -> None:
    def at(time: int, body: bytes) -> HttpAnswer:
        return answer(gzip.compress(body, mtime=time), encoding=b"gzip")

    expectation = expect([at(1, b"hello"), at(2, b"hello")])
    assert expectation.fault(at(3, b"hello")) is None
    assert expectation.fault(at(3, b"other")) == "another body"


def test_of_a_very_long_body_one_byte_is_enough() -> None:
    long = b"x" * (KEPT + 1)
    assert faults([long] * 2, long, long[:-1] + b"y", long[:-1]) == [
        *(None, "another body", "shorter body"),
    ]


def test_any_body_asks_for_status_and_type_alone() -> None:
    expectation = expect([answer(b"one")] * 3, any_body=True)
    assert expectation.fault(answer(b"two")) is None
    assert expectation.fault(answer(b"")) == "empty body"
    assert expectation.fault(answer(b"two", status=500)) == "status 500"


@pytest.mark.parametrize(
    ("bodies", "text"),
    [
        ([b"hello"] * 2, "always the same 5 bytes"),
        ([b""] * 2, "no body"),
        ([b"at 1", b"at 2"], "always the same body but for its numbers"),
        ([b"abc", b"xyz"], "always 3 bytes, which differ"),
        ([b"<a>", b"<bc>"], "a body that varies between the same beginning and end"),
        ([b"abc", b"wxyz"], "a body that varies, never empty"),
        ([b"abc", b""], "a body that varies"),
    ],
)
def test_what_was_learned_is_said_in_words(bodies: list[bytes], text: str) -> None:
    assert expect([answer(body) for body in bodies]).text == f"200 text/plain, {text}"


def test_a_body_that_ends_with_its_connection_may_be_cut_unseen() -> None:
    bodies = [answer(b"abc", framed=False), answer(b"wxyz", framed=False)]
    assert expect(bodies).can_be_cut_unseen
    assert not expect(bodies[:1] * 2).can_be_cut_unseen  # it is known
    assert not expect([answer(b"abc"), answer(b"wxyz")]).can_be_cut_unseen  # it is framed


def test_what_came_is_shown_without_harm() -> None:
    assert shown(answer(b"o\x1b[2Jops\n", status=502)) == (
        "502 text/plain, 9 bytes: 'o\\x1b[2Jops\\n'"
    )
    assert shown(answer(b"", status=302, location=b"/a\x07")) == (
        "302 text/plain, to /a\\x07, no body"
    )
    assert shown(answer(b"x" * 100)).endswith("x…'")


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_every_answer_that_was_learned_from_is_right(bodies: list[bytes]) -> None:
    answers = [answer(body) for body in bodies]
    expectation = expect(answers)
    assert [expectation.fault(each) for each in answers] == [None] * len(answers)


@given(st.binary(max_size=200), st.sampled_from([b"gzip", b"deflate", b"br", b""]))
def test_no_bytes_from_outside_are_too_much_for_it(data: bytes, encoding: bytes) -> None:
    found = answer(data, encoding=encoding)
    assert isinstance(shown(found), str)
    body = decoded(found)
    assert body is None or isinstance(body, bytes)
    expect([found]).fault(answer(data[:-1], encoding=encoding))
