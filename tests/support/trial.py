"""Trials of the check, for tests: a server is started, stopped under load, and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graceful_asgi._check.trial import stop_under_load

if TYPE_CHECKING:
    from graceful_asgi._check.client.plan import LoadPlan
    from graceful_asgi._check.result.verdict import Trial, Verdict
    from graceful_asgi._check.server.process import TargetProcess


async def run_trial(server: TargetProcess, plan: LoadPlan, **how: Any) -> Trial:
    """Start *server*, and stop it under load: see `stop_under_load`."""
    async with server:
        return await stop_under_load(server, plan, **how)


def detail(verdict: Verdict, scenario: str) -> str:
    """Return what became of a scenario, in words: "200 complete", "lost: cut body", "not run"."""
    found = verdict.finding(scenario)
    return found.text if found else "not run"
