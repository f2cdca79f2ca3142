"""The end of an event, in whatever pieces it comes, and the responses that are event streams."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful_asgi._asgi.event_stream import EventStream, is_event_stream

SSE = (b"content-type", b"text/event-stream")


def stream_of(*chunks: bytes) -> EventStream:
    stream = EventStream()
    for chunk in chunks:
        stream.passed(stream.begins(chunk))
    return stream


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_an_event_ends_with_an_empty_line(line_end: bytes) -> None:
    event = b"id: 1" + line_end + b"data: x" + line_end
    assert not stream_of(event).between_events
    assert stream_of(event + line_end).between_events
    assert not stream_of(event + line_end + b"data: y").between_events


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: x\n", b"\n"],
        [b"data: x", b"\n\n"],
        [b"data: x\n\n", b""],
        [b"data: x\r", b"\n\r", b"\n"],
        [b"data: x\n", b"\r\n"],
        [b"data: x\r\n", b"\n"],
        [b": ping\n\n"],
    ],
)
def test_the_pieces_an_event_comes_in_do_not_matter(chunks: list[bytes]) -> None:
    assert stream_of(*chunks).between_events


@pytest.mark.parametrize(
    "chunks",
    [[b"data: x\r\n"], [b"data: x\n", b"data: y\n"], [b"\n", b"x"], [b"data: x\r", b"\n"]],
)
def test_the_end_of_a_line_is_not_the_end_of_an_event(chunks: list[bytes]) -> None:
    assert not stream_of(*chunks).between_events


@given(st.text("ab:\n", max_size=12), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_cut_into_any_pieces_the_same_stream_ends_the_same_way(
    text: str, line_end: str, data: Any
) -> None:
    whole = text.replace("\n", line_end).encode()
    at = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]
    expected = not text or text.endswith("\n\n") or not text.strip("\n")
    assert stream_of(*pieces).between_events is expected


def test_a_stream_that_has_sent_nothing_is_between_events() -> None:
    assert EventStream().between_events


def test_nothing_is_between_events_while_a_piece_is_being_sent() -> None:
    stream = EventStream()
    first, second = stream.begins(b"data: x\n\n"), stream.begins(b"data: y\n\n")
    stream.passed(first)
    assert not stream.between_events
    stream.passed(second)
    assert stream.between_events


@pytest.mark.parametrize(
    ("before", "failed", "between"),
    [
        pytest.param(b"data: x\n\n", b"data: y\n\n", True, id="a whole event, or none of it"),
        pytest.param(b"data: x\n\n", b"data: y", False, id="it may have begun one"),
        pytest.param(b"data: x", b"\n\n", False, id="it may not have ended one"),
    ],
)
def test_a_piece_that_may_or_may_not_have_been_sent(
    before: bytes, failed: bytes, between: bool
) -> None:
    stream = stream_of(before)
    stream.failed(stream.begins(failed))
    assert stream.between_events is between
    stream.passed(stream.begins(b"data: z\n\n"))
    assert stream.between_events, "it comes to itself with the next event's end"


@pytest.mark.parametrize(
    ("headers", "is_one"),
    [
        ([SSE], True),
        ([(b"Content-Type", b"Text/Event-Stream; charset=utf-8")], True),
        ([(b"x-a", b"1"), SSE, (b"connection", b"keep-alive")], True),
        ([], False),
        ([(b"content-type", b"text/plain")], False),
        ([(b"content-type", b"text/event-streams")], False),
        ([SSE, (b"content-length", b"100")], False),
        ([SSE, (b"content-encoding", b"gzip")], False),
    ],
)
def test_which_responses_may_be_ended_between_events(headers: Any, is_one: bool) -> None:
    assert is_event_stream({"type": "http.response.start", "headers": headers}) is is_one


def test_a_response_without_headers_is_none() -> None:
    assert not is_event_stream({"type": "http.response.start"})


def test_pieces_sent_beside_each_other_are_not_taken_for_one_event() -> None:
    """Nobody knows which goes first."""
    stream = stream_of(b"data: x\n\n")
    first, second = stream.begins(b"data: half\n"), stream.begins(b"\n")
    stream.passed(second)
    stream.passed(first)
    assert not stream.between_events
