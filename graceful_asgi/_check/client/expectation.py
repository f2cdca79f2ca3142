"""The right answer to a request, learned from those that came before the load. Pure."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .answer import HttpAnswer

_TOKEN: Final = re.compile(rb"[0-9A-Za-z_-]+")
_DIGITS: Final = re.compile(rb"[0-9]")
_SHOWN: Final = 60
# 32 is added to the window: zlib then takes the header of gzip as well as its own.
_ANY_HEADER: Final = zlib.MAX_WBITS | 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """All that right answers to one request have in common. Make one with `expect`."""

    statuses: frozenset[int]
    type: bytes | None
    """None: it varies."""
    exactly: HttpAnswer | None = None
    """Each answer has the body of this one."""
    but_numbers: bytes | None = None
    """Each body is this one, but for words with a digit in them: counters, dates, identifiers."""
    begins: bytes = b""
    """The beginning of each body, with the words replaced that have a digit in them."""
    ends: bytes = b""
    """The end of each body, in the same way."""
    length: int | None = None
    """The bytes of each body; None if that varies."""
    may_be_empty: bool = False
    framed: bool = True
    """The framing of the answer says where the body ends."""
    has_end: bool = True
    """False for an event stream that goes on: whatever ends it, it is not whole."""

    def fault(self, answer: HttpAnswer) -> str | None:
        """Return what is wrong with an answer, as a kind of wrong; None: nothing."""
        if answer.status not in self.statuses:
            return f"status {answer.status}"
        if self.type is not None and answer.type != self.type:
            return "another type"
        if not self.has_end:
            return "shorter body"
        if not answer.length and not self.may_be_empty:
            return "empty body"
        if self.exactly is not None:
            return _differs(self.exactly, answer)
        body = decoded(answer)
        if body is None:
            return "damaged body"
        if self.but_numbers is not None:
            plain = _without_numbers(body)
            if plain == self.but_numbers:
                return None
            return "shorter body" if self.but_numbers.startswith(plain) else "another body"
        if self.length is not None and answer.length != self.length:
            return "shorter body" if answer.length < self.length else "another body"
        return self._differs_at_an_end(body)

    def widened(self, answer: HttpAnswer) -> Expectation | None:
        """Return what is right if this answer is right, too, though a number in it differs.

        None: more than that is different. Before the signal this finds a clock or a counter that
        stood still while the answers were learned.
        """
        if self.exactly is None or self.fault(answer) not in ("another body", "shorter body"):
            return None
        wider = expect([self.exactly, answer])
        return None if wider.but_numbers is None else wider

    def _differs_at_an_end(self, body: bytes) -> str | None:
        if not (self.begins or self.ends):
            return None
        plain = _without_numbers(body)
        if not plain.startswith(self.begins):
            return "another body"
        # What begins as it should and lacks its end has been cut.
        return None if plain.endswith(self.ends) else "shorter body"

    @property
    def text(self) -> str:
        """Return it in words: "200 text/html, always the same 612 bytes"."""
        statuses = " or ".join(map(str, sorted(self.statuses)))
        kind = "" if not self.type else f" {as_text(self.type.partition(b';')[0])}"
        return f"{statuses}{kind}, {self._body_text}"

    @property
    def _body_text(self) -> str:
        if not self.has_end:
            return "which goes on without an end"
        if self.exactly is not None:
            length = self.exactly.length
            return f"always the same {length:,} bytes" if length else "no body"
        if self.but_numbers is not None:
            return "always the same body but for its numbers"
        if self.length is not None:
            return f"always {self.length:,} bytes, which differ"
        if self.begins or self.ends:
            return "a body that varies between the same beginning and end"
        return "a body that varies" if self.may_be_empty else "a body that varies, never empty"

    @property
    def can_be_cut_unseen(self) -> bool:
        """Return True where a body that was cut cannot be told from a whole one.

        Its end is nothing but the end of the connection, and its length is not known either.
        """
        known = self.exactly or self.but_numbers is not None or self.length is not None
        return not (self.framed or known or self.ends)


def expect(answers: Sequence[HttpAnswer], *, any_body: bool = False) -> Expectation:
    """Return what all of `answers`, one at least, have in common.

    With `any_body` nothing is asked of a body, but that it is not empty where none of these is.
    """
    first = answers[0]
    types = {answer.type for answer in answers}
    bodies = [decoded(answer) for answer in answers]
    known = [body for body in bodies if body is not None and not any_body]
    exactly = but_numbers = length = None
    begins = ends = b""
    if not any_body and all(_differs(first, answer) is None for answer in answers):
        exactly = first
    elif len(known) == len(answers):
        plain = [_without_numbers(body) for body in known]
        if len(set(plain)) == 1 and first.digest == b"":
            but_numbers = plain[0]
        else:
            begins, ends = _common_ends(plain)
            if len({answer.length for answer in answers}) == 1:
                length = first.length
    return Expectation(
        statuses=frozenset(answer.status for answer in answers),
        type=first.type if len(types) == 1 else None,
        exactly=exactly,
        but_numbers=but_numbers,
        begins=begins,
        ends=ends,
        length=length,
        may_be_empty=any(answer.length == 0 for answer in answers),
        framed=all(answer.framed for answer in answers),
    )


def decoded(answer: HttpAnswer) -> bytes | None:
    """Return the body without its Content-Encoding; None: it is not a whole one.

    A body that is too long to be kept, or encoded in a way that Python does not know, is taken as
    it is.
    """
    if answer.encoding not in (b"gzip", b"x-gzip", b"deflate") or not answer.body:
        return answer.body
    decoder = zlib.decompressobj(_ANY_HEADER)
    try:
        body = decoder.decompress(answer.body) + decoder.flush()
    except zlib.error:
        return None
    return body if decoder.eof else None


def shown(answer: HttpAnswer) -> str:
    """Return what came, in words: "200 text/plain, 4 bytes: 'oops'"."""
    kind = f" {as_text(answer.type)}" if answer.type else ""
    to = f", to {as_text(answer.location)}" if answer.location else ""
    body = decoded(answer)
    if not answer.length:
        return f"{answer.status}{kind}{to}, no body"
    bytes_ = "1 byte" if answer.length == 1 else f"{answer.length:,} bytes"
    if not body:
        return f"{answer.status}{kind}{to}, {bytes_}"
    start = as_text(body[:_SHOWN])
    return f"{answer.status}{kind}{to}, {bytes_}: '{start}{'…' if len(body) > _SHOWN else ''}'"


def as_text(data: bytes) -> str:
    """Return bytes from outside as text that is safe on a terminal."""
    return printable(data.decode("utf-8", "replace"))


def _differs(expected: HttpAnswer, answer: HttpAnswer) -> str | None:
    if _identity(answer) == _identity(expected):
        return None
    if answer.encoding != expected.encoding or (answer.encoding and decoded(answer) is not None):
        # The same body may be encoded in more than one way.
        body, other = decoded(answer), decoded(expected)
        return None if body == other and body is not None else "another body"
    if answer.encoding:
        return "damaged body"
    # Of a body too long to be kept only the length is known.
    is_beginning = expected.body.startswith(answer.body) or bool(expected.digest)
    is_shorter = answer.length < expected.length and is_beginning
    return "shorter body" if is_shorter else "another body"


def _identity(answer: HttpAnswer) -> tuple[bytes, int, bytes, bytes]:
    return answer.body, answer.length, answer.digest, answer.encoding


def _without_numbers(body: bytes) -> bytes:
    return _TOKEN.sub(lambda word: b"0" if _DIGITS.search(word[0]) else word[0], body)


def _common_ends(bodies: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return how all bodies begin and end, without words of which only a part is common."""
    begins = _common_beginning(bodies)
    shortest = min(map(len, bodies))
    ends = _common_beginning([body[::-1] for body in bodies])[::-1]
    ends = ends[max(0, len(begins) + len(ends) - shortest) :]
    while begins and _TOKEN.match(begins[-1:]):
        begins = begins[:-1]
    while ends and _TOKEN.match(ends[:1]):
        ends = ends[1:]
    return begins, ends


def _common_beginning(bodies: Sequence[bytes]) -> bytes:
    # What the first and the last of them in order have in common, all between them have as well.
    first, last = min(bodies), max(bodies)
    common = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        common += 1
    return first[:common]
