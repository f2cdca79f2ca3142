"""The shape every scenario has."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import anyio

from ..result.counts import Counter
from ..result.finding import Finding

if TYPE_CHECKING:
    from ..result.finding import Exit
    from .client import Connection
    from .plan import LoadPlan
    from .run import Run


class Scenario(ABC):
    """One way of using a server across its stop. Single use: one run, then one finding."""

    name: ClassVar[str]

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.counter = Counter(deliberate=plan.deliberate_statuses)
        self.in_position = anyio.Event()
        """Set when the signal may come: what has to be in flight is; or never will be."""
        self._reason = ""

    @property
    def is_left_out(self) -> bool:
        """Whether it is known already that there is nothing to run."""
        return bool(self._reason)

    @abstractmethod
    async def carry_out(self, run: Run) -> None:
        """Use the server until there is nothing left to see. May be cancelled when it has gone."""

    @abstractmethod
    def judge(self, end: Exit) -> Finding:
        """The finding, once the server has gone. For a scenario that was run."""

    def finding(self, end: Exit) -> Finding:
        """The finding, or why there is none."""
        if self._reason:
            return Finding(self.name, "not run", self._reason, self.counter.result())
        return self.judge(end)

    def not_run(self, reason: str) -> None:
        """Say that the scenario could not take place, and why."""
        self._reason = self._reason or reason

    async def connect_in_time(self, run: Run) -> Connection | None:
        """A connection shortly before the signal. None: there is none, or the signal came first."""
        await run.poised.wait()
        connection = await run.connect(self.counter)
        if connection is not None and not run.signalled.is_set():
            return connection
        if connection is not None:
            connection.close()
        self.not_run("no connection before the signal")
        return None


def since_signal(run: Run) -> float:
    """Seconds from the signal to now; negative before it is sent."""
    signalled_at = run.timeline.signalled_at
    return -1.0 if signalled_at is None else time.monotonic() - signalled_at
