"""One server of a check: its command, and what has been seen of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .verdict import Trial, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..server.command import Command
    from .finding import Finding


@dataclass(slots=True)
class Target:
    """One server of a check, and what has been seen of it."""

    command: Command
    env: Mapping[str, str] | None = None
    """The server's environment, without `PORT`; None: this process's own."""
    trials: list[Trial] = field(default_factory=list)
    others: list[Finding] = field(default_factory=list)
    log: str = ""
    """The end of the last run's output."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on all rounds so far. `ValueError` before the first."""
        return judge(self.trials, others=self.others)
