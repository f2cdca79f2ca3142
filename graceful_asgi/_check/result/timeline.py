"""Counts of requests over time, in slices that begin at the signal."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

SLICE: Final = 0.1
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One slice of a run."""

    second: float
    """Its beginning, in seconds from the signal (negative: before it)."""
    answered: int
    """Right answers."""
    failed: int
    """Requests lost and wrong answers, counted when the client learns of them."""
    in_flight: int
    """Written and without an outcome, at the slice's end."""


class Timeline:
    """Takes notes of instants (monotonic seconds); cheap enough for every request."""

    __slots__ = ("_answered", "_ended", "_failed", "_written", "first_refusal_at", "signalled_at")

    def __init__(self) -> None:
        self._written = array("d")
        self._ended = array("d")
        self._answered = array("d")
        self._failed = array("d")
        self.signalled_at: float | None = None
        self.first_refusal_at: float | None = None

    def written(self, now: float) -> None:
        """Note that a request was written."""
        self._written.append(now)

    def ended(self, now: float, *, answered: bool, failed: bool) -> None:
        """Note the outcome of a request that was written."""
        self._ended.append(now)
        if answered:
            self._answered.append(now)
        elif failed:
            self._failed.append(now)

    def refused(self, now: float) -> None:
        """Note that a request could not be sent."""
        if self.first_refusal_at is None:
            self.first_refusal_at = now

    @property
    def sent(self) -> int:
        """The number of requests that have been written."""
        return len(self._written)

    @property
    def first_refusal(self) -> float | None:
        """Seconds from the signal to the first client that was refused."""
        if self.signalled_at is None or self.first_refusal_at is None:
            return None
        return self.first_refusal_at - self.signalled_at

    def samples(self) -> list[Sample]:
        """Return every slice from the first request to the last outcome; none without a signal."""
        signalled_at = self.signalled_at
        if signalled_at is None or not self._written:
            return []

        def sliced(instants: Iterable[float]) -> Counter[int]:
            return Counter(math.floor((instant - signalled_at) / SLICE) for instant in instants)

        written, ended = sliced(self._written), sliced(self._ended)
        answered, failed = sliced(self._answered), sliced(self._failed)
        moments = {*written, *ended}
        samples, in_flight = [], 0
        for moment in range(min(moments), max(moments) + 1):
            in_flight += written[moment] - ended[moment]
            samples.append(Sample(moment * SLICE, answered[moment], failed[moment], in_flight))
        return samples
