"""The load on a server in one run: scenarios that use it until it has gone, and what they found.

Knows no process and no signal. `Load.mark_signalled` marks the signal, and `until` ends the run.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from .client.learning import learn_all
from .client.run import Run
from .result.counts import LoadResult, total
from .scenarios import background

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from .client.expectation import Expectation
    from .client.plan import Endpoint, LoadPlan
    from .result.finding import Exit, Finding
    from .scenarios.base import Scenario

# What the server sent before it exited is in our kernel's buffers by then; this is for reading it.
_READ_OUT_PERIOD: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStatistics:
    """A load while it runs."""

    sent: int = 0
    lost: int = 0
    wrong: int = 0
    refused: int = 0
    in_flight: int = 0
    """Requests that were written, and have no outcome yet."""


class Load:
    """One run of some scenarios (by default `background`) against ``host:port``.

    Single use; made and used in one event loop (asyncio or uvloop).
    """

    def __init__(
        self,
        plan: LoadPlan,
        *,
        host: str = "127.0.0.1",
        port: int,
        scenarios: Sequence[Scenario] | None = None,
        expectations: dict[Endpoint, Expectation] | None = None,
    ) -> None:
        """Learn into `expectations`, which has those of other runs of the same server."""
        self._run = Run(plan, host=host, port=port, expectations=expectations)
        self._scenarios = background(plan) if scenarios is None else scenarios
        self.timeline: Final = self._run.timeline
        self.notes: Final[Sequence[str]] = self._run.notes
        self.expectations: Final[Mapping[Endpoint, Expectation]] = self._run.expectations
        """The right answers, as far as they have been learned."""

    def mark_signalled(self) -> None:
        """Count requests as sent after the signal from here on. Idempotent, synchronous.

        Call it with no await between it and the signal itself.
        """
        self._run.mark_signalled()

    @property
    def signalled_at(self) -> float:
        """The instant of the signal (monotonic). Raises `RuntimeError` before it."""
        at = self._run.timeline.signalled_at
        if at is None:
            raise RuntimeError("the signal has not been sent")
        return at

    def statistics(self) -> LoadStatistics:
        """Return the figures of this instant."""
        found = total(scenario.load for scenario in self._scenarios)
        counts, sent = found.total, self.timeline.sent
        return LoadStatistics(
            sent=sent,
            lost=counts.lost_total,
            wrong=counts.wrong_total,
            refused=found.refused,
            in_flight=sent - counts.sent,
        )

    async def learn(self, *, within: float) -> None:
        """Ask for every path a few times, and learn what its right answers are.

        Without this every complete answer that is no 5xx is taken for a right one. `within` is how
        many seconds an answer may take. Raises `PathError` for paths that do not answer as they
        should.
        """
        scenarios = [each for each in self._scenarios if not each.is_left_out]
        endpoints = [each.endpoint for each in scenarios if each.learns]
        await learn_all(self._run, endpoints, [each.prepare for each in scenarios], within=within)

    async def in_position(self) -> None:
        """Wait until every scenario has what it wants to be in flight at the signal."""
        for scenario in self._scenarios:
            await scenario.in_position.wait()

    def stop(self) -> None:
        """End the run now, as if its time had passed. Idempotent; nothing once it has ended."""
        self._run.until.cancel()

    async def run(self, *, until: Callable[[], Awaitable[object]], within: float) -> LoadResult:
        """Send until `until` returns (the server has exited) or `within` seconds have passed.

        What is unanswered then, and not in our receive buffers, is lost. Raises `SetupError` when a
        connect fails before the signal, or later for want of resources of our own.
        """
        async with anyio.create_task_group() as group:
            for scenario in self._scenarios:
                group.start_soon(self._carry_out, scenario)
            group.start_soon(self._poise)
            self._run.until.deadline = anyio.current_time() + within
            with self._run.until:
                await until()
            await self._run.end(_READ_OUT_PERIOD + self._run.plan.latency)
            # A scenario that has read the end of its connection has a few lines to run yet.
            await asyncio.sleep(0)
            group.cancel_scope.cancel()
        if self._run.error is not None:
            raise self._run.error
        return total(scenario.load for scenario in self._scenarios)

    def findings(self, end: Exit) -> list[Finding]:
        """Return what each scenario came to, once `run` has returned."""
        return [scenario.finding(end) for scenario in self._scenarios]

    async def _carry_out(self, scenario: Scenario) -> None:
        try:
            if not scenario.is_left_out:
                await scenario.carry_out(self._run)
        finally:
            scenario.in_position.set()

    async def _poise(self) -> None:
        await anyio.sleep(self._run.plan.single_after)
        self._run.poised.set()
