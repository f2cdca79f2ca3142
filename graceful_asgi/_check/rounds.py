"""Rounds of trials: one server, or several in alternation under the same load."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from .result.finding import Finding
from .result.text import signal_name
from .scenarios import Hung, background, repeated, together
from .server.port import free_port
from .server.process import TargetProcess
from .trial import run_trial

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from .load.plan import LoadPlan
    from .load.scenario import Scenario
    from .result.target import Target
    from .result.verdict import Trial
    from .server.command import Command
    from .trial import Watch

Select = Callable[["LoadPlan"], "Sequence[Scenario]"]

_LEFT_OUT: Final = "left out (--skip)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a check goes. Periods in seconds."""

    plan: LoadPlan
    rounds: int = 1
    signal: int = signal.SIGTERM
    signal_after: float = 3.0
    """From the beginning of the load."""
    deadline: float = 30.0
    """From the signal; the server is killed then."""
    start_period: float = 30.0
    """How long the server may take until it answers."""
    skip: frozenset[str] = frozenset()
    """Scenarios to leave out, by name."""

    def as_dict(self) -> dict[str, Any]:
        """Return what a reader of the JSON needs to know of them."""
        return {
            "rounds": self.rounds,
            "signal": signal_name(self.signal),
            "signal_after": self.signal_after,
            "deadline": self.deadline,
            "keep_alive": self.plan.keep_alive_clients,
            "fresh": self.plan.fresh_clients,
            "think": self.plan.think_period * 1000,
            "path": self.plan.path,
        }


class Progress(Protocol):
    """Who is told how a check goes on."""

    def run(self, number: int, command: Command, what: str) -> AbstractContextManager[Watch]:
        """A run of `command` in round `number` begins; the block is the run."""


async def run_rounds(targets: Sequence[Target], settings: Settings, progress: Progress) -> None:
    """Run all servers in turn, `settings.rounds` times, and note what is seen on each.

    Raises `CheckError` when a server cannot be run.
    """
    for number in range(1, settings.rounds + 1):
        for target in targets:
            await _round(target, settings, progress, number)


async def _round(target: Target, settings: Settings, progress: Progress, number: int) -> None:
    async def run(what: str, select: Select, again_after: Sequence[float] = ()) -> Trial:
        with progress.run(number, target.command, what) as watch:
            return await _run(target, settings, select, again_after, watch)

    def without_skipped(plan: LoadPlan) -> Sequence[Scenario]:
        scenarios = together(plan)
        for scenario in scenarios:
            if scenario.name in settings.skip:
                scenario.not_run(_LEFT_OUT)
        return scenarios

    target.trials.append(await run("load", without_skipped))
    if reason := _why_not_hung(settings):
        target.others.append(Finding(Hung.name, "not run", reason))
    else:
        target.others += (await run(Hung.name, lambda plan: [Hung(plan)])).findings
    if reason := _why_not_repeated(settings):
        target.others.append(Finding(repeated.NAME, "not run", reason))
    else:
        again = await run(repeated.NAME, background, repeated.SENT_AGAIN_AFTER)
        target.others.append(repeated.judge(again.load, again.end))


def _why_not_hung(settings: Settings) -> str:
    if Hung.name in settings.skip:
        return _LEFT_OUT
    return "needs --hang-path" if settings.plan.hang_path is None else ""


def _why_not_repeated(settings: Settings) -> str:
    if repeated.NAME in settings.skip:
        return _LEFT_OUT
    if settings.signal in repeated.URGENT:
        return f"a second {signal_name(settings.signal)} asks for haste, at the cost of requests"
    return ""


async def _run(
    target: Target,
    settings: Settings,
    select: Select,
    again_after: Sequence[float],
    watch: Watch,
) -> Trial:
    port = free_port()
    env = os.environ if target.env is None else target.env
    with tempfile.TemporaryDirectory(prefix="graceful-asgi-") as directory:
        server = TargetProcess(
            target.command.at(port),
            port=port,
            log_path=Path(directory, "server.log"),
            env={**env, "PORT": str(port)},
            ready_path=settings.plan.path,
            start_period=settings.start_period,
        )
        trial = await run_trial(
            server,
            settings.plan,
            signal_after=settings.signal_after,
            exit_period=settings.deadline,
            number=settings.signal,
            again_after=again_after,
            scenarios=select,
            watch=watch,
        )
        target.log = server.log_tail()
    return trial
