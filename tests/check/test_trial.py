"""A trial puts load on a real process, tells it to stop, and reports both sides."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.polling import PATIENCE
from support.trial import run_trial

from check.server.test_process import is_gone, server
from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.errors import ServerExitedError

if TYPE_CHECKING:
    from pathlib import Path

    from graceful_asgi._check.load import LoadStatistics
    from graceful_asgi._check.trial import Step

pytestmark = pytest.mark.anyio


def plan(*, path: str = "/") -> LoadPlan:
    return LoadPlan(
        keep_alive_clients=2, fresh_clients=2, path=path, slow_path="/slow", single_after=0.0
    )


async def test_a_trial_reports_the_load_and_the_exit(tmp_path: Path) -> None:
    steps: list[Step] = []

    def watch(step: Step, statistics: LoadStatistics) -> None:
        if step not in steps:
            steps.append(step)

    process = server(tmp_path, "exits 7")
    trial = await run_trial(process, plan(), signal_after=1.0, watch=watch)
    assert trial.load.before.served > 0
    assert [finding.scenario for finding in trial.findings][2:] == [
        "slow request",
        "streaming download",
    ]
    assert trial.end.code == 7
    assert 0 < trial.end.seconds < PATIENCE
    assert trial.end.in_time
    assert sum(sample.answered for sample in trial.samples) == trial.load.total.served
    assert steps == ["learning", "under load", "told to stop", "exited"]


async def test_a_server_that_does_not_stop_is_served_on_and_then_killed(tmp_path: Path) -> None:
    process = server(tmp_path, "ignores SIGTERM")
    # No fresh clients: a second slow request would not be answered before the kill.
    load = replace(plan(), fresh_clients=0)
    trial = await run_trial(process, load, signal_after=0.2, exit_period=1.0)
    assert trial.load.after.served > 0
    assert trial.load.after.lost_total == 0
    assert trial.end.code == -signal.SIGKILL
    assert trial.end.late
    assert trial.end.seconds >= 1.0
    assert is_gone(process.pid)


async def test_a_server_that_ends_between_its_deadline_and_the_kill_counts_as_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that has waited for its last client, when that client gives up."""
    process = server(tmp_path, "drains")
    kill = process.kill

    def kill_late() -> None:
        process.wait(60)
        kill()

    monkeypatch.setattr(process, "kill", kill_late)
    trial = await run_trial(process, plan(), signal_after=0.2, exit_period=0.3)
    assert process.exit_code == 0
    assert trial.end.late
    assert trial.end.code == -signal.SIGKILL


async def test_a_server_that_goes_before_the_signal_is_an_error_and_no_verdict(
    tmp_path: Path,
) -> None:
    process = server(tmp_path, "serves")
    with pytest.raises(ServerExitedError, match="exited with code 9"):
        await run_trial(process, plan(path="/exit"), signal_after=5.0)
    assert is_gone(process.pid)
