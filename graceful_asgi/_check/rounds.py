"""Rounds of trials: one server, or several in alternation under the same load."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from .finding import Finding
from .port import free_port
from .process import ServerProcess
from .scenarios import Hung, background, repeated, together
from .summary import signal_name
from .trial import Trial, run_trial
from .verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from .command import Command
    from .plan import LoadPlan
    from .scenarios.scenario import Scenario
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


@dataclass(slots=True)
class Contestant:
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


class Progress(Protocol):
    """Who is told how a check goes on."""

    def run(self, number: int, command: Command, what: str) -> AbstractContextManager[Watch]:
        """A run of `command` in round `number` begins; the block is the run."""


async def run_rounds(
    contestants: Sequence[Contestant], settings: Settings, progress: Progress
) -> None:
    """Run all servers in turn, `settings.rounds` times, and note what is seen on each.

    Raises `CheckError` when a server cannot be run.
    """
    for number in range(1, settings.rounds + 1):
        for contestant in contestants:
            await _round(contestant, settings, progress, number)


async def _round(
    contestant: Contestant, settings: Settings, progress: Progress, number: int
) -> None:
    async def run(what: str, select: Select, again_after: Sequence[float] = ()) -> Trial:
        with progress.run(number, contestant.command, what) as watch:
            return await _run(contestant, settings, select, again_after, watch)

    def without_skipped(plan: LoadPlan) -> Sequence[Scenario]:
        scenarios = together(plan)
        for scenario in scenarios:
            if scenario.name in settings.skip:
                scenario.not_run(_LEFT_OUT)
        return scenarios

    contestant.trials.append(await run("load", without_skipped))
    if reason := _why_not_hung(settings):
        contestant.others.append(Finding(Hung.name, "not run", reason))
    else:
        contestant.others += (await run(Hung.name, lambda plan: [Hung(plan)])).findings
    if reason := _why_not_repeated(settings):
        contestant.others.append(Finding(repeated.NAME, "not run", reason))
    else:
        again = await run(repeated.NAME, background, repeated.SENT_AGAIN_AFTER)
        contestant.others.append(repeated.judge(again.load, again.end))


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
    contestant: Contestant,
    settings: Settings,
    select: Select,
    again_after: Sequence[float],
    watch: Watch,
) -> Trial:
    port = free_port()
    env = os.environ if contestant.env is None else contestant.env
    with tempfile.TemporaryDirectory(prefix="graceful-asgi-") as directory:
        server = ServerProcess(
            contestant.command.at(port),
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
        contestant.log = server.log_tail()
    return trial
