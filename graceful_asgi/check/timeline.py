"""When requests were written, answered and lost, in slices of a tenth of a second. No clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

SLICE: Final = 0.1
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One slice of a run."""

    second: float
    """Its beginning, in seconds from the signal (negative: before it)."""
    answered: int
    lost: int
    """Losses, counted when the client learns of them."""
    refused: int
    in_flight: int
    """Written and without an outcome, at the slice's end."""


class Timeline:
    """Takes notes of instants (monotonic seconds); cheap enough for every request."""

    __slots__ = (
        "_answered",
        "_ended",
        "_lost",
        "_refused",
        "_written",
        "exited_at",
        "signalled_at",
    )

    def __init__(self) -> None:
        self._written: Counter[int] = Counter()
        self._ended: Counter[int] = Counter()
        self._answered: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()
        self._refused: Counter[int] = Counter()
        self.signalled_at: float | None = None
        self.exited_at: float | None = None

    def written(self, now: float) -> None:
        """A request was written."""
        self._written[int(now / SLICE)] += 1

    def ended(self, now: float, *, answered: bool, lost: bool) -> None:
        """A request that was written has got its outcome."""
        moment = int(now / SLICE)
        self._ended[moment] += 1
        if answered:
            self._answered[moment] += 1
        elif lost:
            self._lost[moment] += 1

    def refused(self, now: float) -> None:
        """A request could not be sent."""
        self._refused[int(now / SLICE)] += 1

    @property
    def first_refusal(self) -> float | None:
        """Seconds from the signal to the first refused connection, to a tenth."""
        if self.signalled_at is None or not self._refused:
            return None
        return min(self._refused) * SLICE - self.signalled_at

    def samples(self) -> list[Sample]:
        """Every slice from the first request to the last outcome; none before the signal."""
        moments = [*self._written, *self._ended, *self._refused]
        if self.signalled_at is None or not moments:
            return []
        samples, in_flight = [], 0
        for moment in range(min(moments), max(moments) + 1):
            in_flight += self._written[moment] - self._ended[moment]
            samples.append(
                Sample(
                    second=moment * SLICE - self.signalled_at,
                    answered=self._answered[moment],
                    lost=self._lost[moment],
                    refused=self._refused[moment],
                    in_flight=in_flight,
                )
            )
        return samples
