"""The lines on a control socket: whatever comes in, a request or an error that names the fault."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graceful_asgi._control.protocol import (
    MAX_PERIOD,
    MAX_REASON,
    MAX_REQUEST,
    ControlRequest,
    ProtocolError,
    build_reply,
    build_request,
    parse_reply,
    parse_request,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5), SCALARS)


def line(**fields: Any) -> bytes:
    return json.dumps({"v": 1, **fields}).encode()


@given(
    reason=st.text(min_size=1, max_size=MAX_REASON).filter(str.isprintable),
    wait=st.booleans(),
    resume_after=st.none() | st.floats(0, MAX_PERIOD),
)
def test_a_request_arrives_as_it_was_sent(
    reason: str, wait: bool, resume_after: float | None
) -> None:
    request = ControlRequest(command="drain", reason=reason, wait=wait, resume_after=resume_after)
    sent = build_request(request)
    assert parse_request(sent) == request
    assert sent.count(b"\n") == 1
    assert len(sent) <= MAX_REQUEST


@settings(max_examples=60)
@given(data=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_request_or_an_error(data: bytes) -> None:
    error = ""
    try:
        parse_request(data)
    except ProtocolError as exc:
        error = str(exc)
    assert not error or (error.isprintable() and len(error) < 500)


@settings(max_examples=30)
@given(fields=st.dictionaries(st.sampled_from(["v", "command", "wait", "reason", "x"]), VALUES))
def test_any_fields_are_a_request_or_an_error(fields: dict[str, Any]) -> None:
    given_line = json.dumps({"v": 1, "command": "drain", **fields}).encode()
    try:
        request = parse_request(given_line)
    except ProtocolError:
        return
    assert request.reason.isprintable()
    assert isinstance(request.wait, bool)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JSON object"),
        (b"status", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 4000, "not a JSON object: "),
        (b'{"v": NaN}', "NaN is not JSON"),
        (b'{"v": 1, "v": 1, "command": "status"}', "a field that comes twice"),
        (b"{" + b" " * MAX_REQUEST + b"}", f"more than {MAX_REQUEST} bytes"),
        (b'{"command": "status"}', "v=None is not allowed; allowed: 1"),
        (line(v=2, command="status"), "v=2 is not allowed; allowed: 1"),
        (line(v=True, command="status"), "v=True is not allowed; allowed: 1"),
        (line(v="1", command="status"), "v='1' is not allowed; allowed: 1"),
        (line(), "command=None is not allowed; allowed: one of status, drain, resume"),
        (line(command="stop"), "command='stop' is not allowed; allowed: one of status,"),
        (line(command=["status"]), "is not allowed; allowed: one of status, drain, resume"),
        (line(command="status", wait=True), "'wait' is not a field of status; allowed: v, command"),
        (
            line(command="drain", speed=9),
            "'speed' is not a field of drain; allowed: v, command, reason, wait, resume_after",
        ),
        (line(command="drain", wait=1), "wait=1 is not allowed; allowed: true or false"),
        (line(command="drain", reason=""), "reason='' is not allowed; allowed: 1 to 200"),
        (line(command="drain", reason="a\nb"), r"reason='a\nb' is not allowed"),
        (line(command="drain", reason="\x1b[2J"), "is not allowed; allowed: 1 to 200 printable"),
        (line(command="drain", reason="x" * 201), "is not allowed; allowed: 1 to 200 printable"),
        (line(command="drain", resume_after=-1), "resume_after=-1 is not allowed; allowed: sec"),
        (line(command="drain", resume_after=True), "resume_after=True is not allowed"),
        (line(command="drain", resume_after="5"), "resume_after='5' is not allowed"),
        (b'{"v":1,"command":"drain","resume_after":1e999}', "resume_after=inf is not allowed"),
        (b'{"v":1,"command":"drain","resume_after":1%s}' % (b"0" * 400), "is not allowed"),
    ],
)
def test_a_line_that_is_no_request_is_told_why(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_request(data)
    assert message in str(raised.value)


def test_an_infinite_number_becomes_null_in_a_reply() -> None:
    """JSON has none, and most parsers refuse what Python writes for it."""
    reply = build_reply("status", process={"time_left": math.inf, "elapsed": 1.23456, "n": 3})
    assert json.loads(reply)["process"] == {"time_left": None, "elapsed": 1.235, "n": 3}


def test_a_reply_of_a_later_version_may_have_more_fields() -> None:
    reply = parse_reply(build_reply("status", process={"pid": 7}, mood="good"))
    assert reply.kind == "status"
    assert reply.fields == {"process": {"pid": 7}, "mood": "good"}


@pytest.mark.parametrize("data", [b"", b"{}", b'{"v":1}', b'{"v":2,"reply":"status"}', b"\x00"])
def test_what_is_no_reply_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_reply(data)
