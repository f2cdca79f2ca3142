"""Trials of the check, for tests: a server is started, stopped under load, and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from graceful_asgi._check.result.finding import Finding
from graceful_asgi._check.scenarios import background
from graceful_asgi._check.scenarios.base import Scenario
from graceful_asgi._check.trial import stop_under_load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graceful_asgi._check.client.plan import LoadPlan
    from graceful_asgi._check.client.run import Run
    from graceful_asgi._check.result.finding import Exit
    from graceful_asgi._check.result.verdict import Trial, Verdict
    from graceful_asgi._check.server.process import TargetProcess


class _Warm(Scenario):
    """Sends nothing. It is in position when the other scenarios have had so many answers."""

    name = "warm"
    learns = False

    def __init__(self, plan: LoadPlan, others: Sequence[Scenario], answers: int) -> None:
        super().__init__(plan)
        self._others = others
        self._answers = answers

    async def carry_out(self, run: Run) -> None:
        while self._served() < self._answers:  # noqa: ASYNC110  # nobody announces an answer
            await anyio.sleep(0.01)
        self.in_position.set()

    def _served(self) -> int:
        return sum(each.load.before.served for each in self._others)

    def judge(self, end: Exit) -> Finding:
        return Finding(self.name, "passed", load=self.load)


async def run_trial(
    server: TargetProcess, plan: LoadPlan, *, answers: int = 0, **how: Any
) -> Trial:
    """Start *server*, and stop it under load: see `stop_under_load`.

    The signal waits some seconds more, if need be, for so many *answers*: a slow machine has few in
    the time that a fast one needs for hundreds.
    """
    scenarios = background(plan)
    if answers:
        scenarios.append(_Warm(plan, tuple(scenarios), answers))
    async with server:
        return await stop_under_load(server, plan, scenarios=scenarios, **how)


def detail(verdict: Verdict, scenario: str) -> str:
    """Return what became of a scenario, in words: "200 complete", "lost: cut body", "not run"."""
    found = verdict.finding(scenario)
    return found.text if found else "not run"
