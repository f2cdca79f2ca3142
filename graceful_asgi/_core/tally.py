"""Counts what becomes of work in a drain, and in all drains of a drainer. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..report import StuckWork
    from .work import Outcome, Work


@dataclass(slots=True)
class OutcomeCounts:
    """What has become of the work since a drain began."""

    completed: int = 0
    cancelled: int = 0
    aborted: int = 0
    rejected: int = 0
    stuck: dict[object, StuckWork] = field(default_factory=dict)
    before: dict[Outcome, int] = field(default_factory=dict)
    """The counts of the drains before this one."""

    def count(self, work: Work) -> None:
        """Count *work* that has just ended."""
        setattr(self, work.outcome, getattr(self, work.outcome) + 1)

    def counts(self) -> dict[Outcome, int]:
        """Return the counts by name, as `DrainReport` and `DrainStatistics` take them."""
        return {
            "completed": self.completed,
            "cancelled": self.cancelled,
            "aborted": self.aborted,
            "rejected": self.rejected,
        }

    def totals(self) -> dict[Outcome, int]:
        """Return the counts of this drain and all before it."""
        return {name: self.before.get(name, 0) + count for name, count in self.counts().items()}

    def next(self) -> OutcomeCounts:
        """Return the tally of the drain after this one."""
        return OutcomeCounts(before=self.totals())
