"""Types of option values: an error names the value and what is allowed."""

from __future__ import annotations

import math
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..errors import PolicyError
from ..text import REQUEST_PATH, REQUEST_PATH_IN_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # not to be subscripted before click 8.4

PICTURE_FORMATS: Final = (".svg", ".png")

# The check itself frames its requests: one of these headers would break its counts.
_OURS: Final = frozenset({"connection", "content-length", "transfer-encoding", "upgrade", "expect"})
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_LONGEST_BODY: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Value(ParamType):
    """A value read by a function that raises `ValueError` with what is allowed.

    The text of a `PolicyError` names the value already.
    """

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except PolicyError as error:
            self.fail(str(error), param, ctx)
        except ValueError as error:
            self.fail(f"{value!r} is not allowed: {error}", param, ctx)


def _signal(text: str) -> int:
    if text.isdecimal():
        number = int(text)
        if number in set(signal.valid_signals()):
            return number
    name = text.upper()
    found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    if not isinstance(found, signal.Signals):
        raise ValueError("a signal's name (TERM, SIGTERM, INT, HUP, ...) or its number")
    if found in (signal.SIGKILL, signal.SIGSTOP):
        raise ValueError("no process can handle this signal")
    return int(found)


def _path(text: str) -> str:
    if not re.fullmatch(REQUEST_PATH, text):
        raise ValueError(REQUEST_PATH_IN_WORDS)
    return text


def _target(text: str) -> str:
    method, blank, path = text.rpartition(" ")
    if method not in (*_METHODS, "") or (blank and not method):
        raise ValueError(f"PATH, or METHOD PATH with one of {', '.join(_METHODS)}")
    return f"{method}{blank}{_path(path)}"


def _body(text: str) -> bytes:
    body = text.encode()
    if text.startswith("@"):
        try:
            body = Path(text[1:]).read_bytes()
        except OSError as error:
            raise ValueError(f"{error}") from error
    if len(body) > _LONGEST_BODY:
        raise ValueError(f"at most {_LONGEST_BODY:,} bytes, and these are {len(body):,}")
    return body


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and _TOKEN.fullmatch(name) and value.isprintable() and value.isascii()):
        raise ValueError("NAME: VALUE")
    if name.lower() in _OURS:
        raise ValueError("the check sets this header itself")
    return name, value.strip()


def _number(text: str, what: str, *, may_be_0: bool = True) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (number == 0 and not may_be_0):
        raise ValueError(what)
    return number


def _latency(text: str) -> float:
    """Return seconds: a number is one of milliseconds, if it has no other unit."""
    number, unit = text, 1000.0
    if text.endswith("ms"):
        number = text.removesuffix("ms")
    elif text.endswith("s"):
        number, unit = text.removesuffix("s"), 1.0
    return _number(number, "milliseconds (20, 20ms) or seconds (0.02s)") / unit


def _positive_seconds(text: str) -> float:
    return _number(text, "a number of seconds above 0", may_be_0=False)


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURE_FORMATS:
        raise ValueError(f"a file that ends in {' or '.join(PICTURE_FORMATS)}")
    return _in_a_directory(path)


def _in_a_directory(path: Path) -> Path:
    """Refuse a missing directory now: a check takes long, and its result would be lost."""
    if not path.parent.is_dir():
        raise ValueError(f"a file in a directory that exists, and {path.parent} does not")
    if path.is_dir():
        raise ValueError("a file, and this is a directory")
    return path


SIGNAL: Final = Value("signal", _signal)
TARGET: Final = Value("path", _target)
BODY: Final = Value("text", _body)
PATH: Final = Value("path", _path)
HEADER: Final = Value("name: value", _header)
MILLISECONDS: Final = Value("ms", lambda text: _number(text, "milliseconds, 0 or more"))
LATENCY: Final = Value("ms", _latency)
SECONDS: Final = Value("seconds", _positive_seconds)
XML: Final = Value("file", lambda text: _in_a_directory(Path(text)))
PICTURE: Final = Value("file", _picture)
