"""The protocol of the control socket: lines of JSON, with a version, of limited size. Pure.

A connection carries one request, which is a line, and its reply, which is one line or more.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from ..errors import GracefulError

VERSION: Final = 1

MAX_REQUEST: Final = 4096
"""Bytes of a request, its line's end included."""
MAX_REPLY: Final = 65536
"""Bytes of a line of a reply."""
MAX_REASON: Final = 200
"""Characters of a reason."""
MAX_PERIOD: Final = 7 * 24 * 3600.0
"""Seconds after which a drain may be asked to be undone, at the longest."""

Command = Literal["status", "drain", "resume"]
Kind = Literal["status", "drain", "progress", "outcome", "resume", "error"]
"""The kind of a line of a reply; its key `reply`."""

Fields: TypeAlias = "dict[str, Any]"


class ProtocolError(GracefulError, ValueError):
    """A line that is not allowed; the message names it, and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRequest:
    """A request to one process."""

    command: Command
    reason: str = "control socket"
    """The cause of a drain that the log and the report name."""
    wait: bool = False
    """True keeps the connection until the outcome of the drain is known."""
    resume_after: float | None = None
    """Seconds after which the drain may be undone if no stop has come."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One line of a reply."""

    kind: Kind
    fields: Fields


def build_request(request: ControlRequest) -> bytes:
    """Return *request* as a line."""
    fields: Fields = {"v": VERSION, "command": request.command}
    if request.command == "drain":
        fields.update(reason=request.reason, wait=request.wait, resume_after=request.resume_after)
    return _line(fields)


def parse_request(line: bytes) -> ControlRequest:
    """Return the request that *line* is.

    Raises:
        ProtocolError: it is no request; the message is for the sender.
    """
    if len(line) > MAX_REQUEST:
        raise ProtocolError(f"more than {MAX_REQUEST} bytes in a request")
    command, fields = _parse(line, "command", get_args(Command))
    allowed = _CHECKS if command == "drain" else {}
    for name, value in fields.items():
        if name not in allowed:
            names = ", ".join(("v", "command", *allowed))
            raise ProtocolError(f"{_shown(name)} is not a field of {command}; allowed: {names}")
        accepts, what = allowed[name]
        if not accepts(value):
            raise _not_allowed(name, value, what)
    return ControlRequest(command=command, **fields)


def build_reply(kind: Kind, **fields: object) -> bytes:
    """Return a line of a reply. An infinite number becomes null."""
    return _line({"v": VERSION, "reply": kind, **_finite(fields)})


def parse_reply(line: bytes) -> Reply:
    """Return the reply that *line* is, fields of later versions included.

    Raises:
        ProtocolError: it is no reply that is known here.
    """
    return Reply(*_parse(line, "reply", get_args(Kind)))


def _parse(line: bytes, name: str, allowed: tuple[str, ...]) -> tuple[Any, Fields]:
    """Return the value of the field *name*, one of those *allowed*, and the fields besides it."""
    fields = _object(line)
    version = fields.pop("v", None)
    if version != VERSION or isinstance(version, (bool, float)):
        raise _not_allowed("v", version, str(VERSION))
    value = fields.pop(name, None)
    if value not in allowed:
        raise _not_allowed(name, value, f"one of {', '.join(allowed)}")
    return value, fields


def _is_reason(value: object) -> bool:
    # It goes into a log, as one line.
    return isinstance(value, str) and 0 < len(value) <= MAX_REASON and value.isprintable()


def _is_period(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= MAX_PERIOD  # false for NaN


_CHECKS: Final = {
    "reason": (_is_reason, f"1 to {MAX_REASON} printable characters"),
    "wait": (lambda value: isinstance(value, bool), "true or false"),
    "resume_after": (_is_period, f"seconds, 0 to {MAX_PERIOD:.0f}, or null"),
}


def _not_allowed(name: str, value: object, allowed: str) -> ProtocolError:
    return ProtocolError(f"{name}={_shown(value)} is not allowed; allowed: {allowed}")


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _object(line: bytes) -> Fields:
    try:
        value = json.loads(line, object_pairs_hook=_without_repetition, parse_constant=_refuse)
    except RecursionError:
        raise ProtocolError("not a JSON object: nested too deep") from None
    except ValueError as error:  # the decoding of the text as well
        raise ProtocolError(f"not a JSON object: {_shown(str(error))}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"not a JSON object: {_shown(value)}")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field that comes twice")
    return fields


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _line(fields: Fields) -> bytes:
    return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value
