"""Rounds of trials: one server, or several in alternation under the same load."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckError
from .load import Load, LoadStatistics
from .result.finding import Finding
from .result.text import signal_name
from .scenarios import LEFT_OUT, Hung, background, repeated, together
from .server.port import free_port
from .server.process import TargetProcess
from .trial import stop_under_load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .client.plan import LoadPlan
    from .console import ConsoleProgress
    from .result.verdict import Target, Trial
    from .scenarios.base import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a check. Periods in seconds."""

    plan: LoadPlan
    rounds: int = 1
    until: int = 0
    """Go on until each server's stops could have lost so many requests."""
    signal: int = signal.SIGTERM
    signal_after: float = 3.0
    """Seconds from the beginning of the load."""
    deadline: float = 30.0
    """Seconds from the signal until the server is killed."""
    start_period: float = 30.0
    """Seconds that the server may take until it answers."""
    skip: frozenset[str] = frozenset()
    """Scenarios to leave out, by name."""

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that the JSON report shows."""
        return {
            "rounds": self.rounds,
            "until": self.until,
            "signal": signal_name(self.signal),
            "signal_after": self.signal_after,
            "deadline": self.deadline,
            "keep_alive": self.plan.keep_alive_clients,
            "fresh": self.plan.fresh_clients,
            "think": self.plan.think_period * 1000,
            "latency": self.plan.latency * 1000,
            "path": self.plan.path,
        }


async def run_rounds(
    targets: Sequence[Target], settings: Settings, progress: ConsoleProgress
) -> None:
    """Run all servers in turn, as often as the settings say, and note what is seen on each.

    Raises `CheckError` when a server cannot be run, or a path does not answer as it should.
    """
    for target in targets[1:]:
        # Before the first is under load: what is wrong with the second would end the check later.
        await _learn(target, settings)
    number = 0
    while number < settings.rounds or _is_wanted(targets, settings):
        number += 1
        for target in targets:
            await _Round(target, settings, progress, number).run()
        progress.total(number, targets)


def _is_wanted(targets: Sequence[Target], settings: Settings) -> bool:
    """Return True while another round is needed for `until`."""
    at_risk = min(target.verdict.at_risk for target in targets)
    if settings.until and not at_risk:
        raise CheckError(
            "a round puts no request at risk, so there will never be enough of them: "
            "give the load more clients"
        )
    return at_risk < settings.until


@dataclass(frozen=True, slots=True)
class _Round:
    """One round of one server: a run under the whole load, and the runs of their own."""

    target: Target
    settings: Settings
    progress: ConsoleProgress
    number: int

    async def run(self) -> None:
        target, plan = self.target, self.settings.plan
        target.trials.append(await self._run("load", together(plan, skip=self.settings.skip)))
        if reason := self._why_not_hung():
            target.others.append(Finding(Hung.name, "not run", reason))
        else:
            target.others += (await self._run(Hung.name, [Hung(plan)])).findings
        if reason := self._why_not_repeated():
            target.others.append(Finding(repeated.NAME, "not run", reason))
        else:
            again = await self._run(repeated.NAME, background(plan), repeated.SENT_AGAIN_AFTER)
            target.others.append(repeated.judge_repeated(again.load, again.end))

    def _why_not_hung(self) -> str:
        if Hung.name in self.settings.skip:
            return LEFT_OUT
        return "needs --hang-path" if self.settings.plan.hang_path is None else ""

    def _why_not_repeated(self) -> str:
        if repeated.NAME in self.settings.skip:
            return LEFT_OUT
        if (number := self.settings.signal) in repeated.URGENT:
            return f"a second {signal_name(number)} asks for haste, at the cost of requests"
        return ""

    async def _run(
        self, what: str, scenarios: Sequence[Scenario], again_after: Sequence[float] = ()
    ) -> Trial:
        settings = self.settings
        with (
            self.progress.run(self.number, self.target.command, what) as watch,
            _process(self.target, settings) as server,
        ):
            watch("starting", LoadStatistics())
            async with server:
                trial = await stop_under_load(
                    server,
                    settings.plan,
                    signal_after=settings.signal_after,
                    exit_period=settings.deadline,
                    number=settings.signal,
                    again_after=again_after,
                    scenarios=scenarios,
                    expectations=self.target.expectations,
                    watch=watch,
                )
        return trial


async def _learn(target: Target, settings: Settings) -> None:
    """Start a server only to learn its right answers."""
    with _process(target, settings) as server:
        async with server:
            load = Load(
                settings.plan,
                host=server.host,
                port=server.port,
                scenarios=together(settings.plan, skip=settings.skip),
                expectations=target.expectations,
            )
            await load.learn(within=max(settings.deadline, settings.plan.answer_period))


@contextmanager
def _process(target: Target, settings: Settings) -> Iterator[TargetProcess]:
    """Make a process of the server, not started yet; its log lives as long as the block."""
    port = free_port()
    env = os.environ if target.env is None else target.env
    with tempfile.TemporaryDirectory(prefix="graceful-asgi-") as directory:
        yield TargetProcess(
            target.command.at(port),
            port=port,
            log_path=Path(directory, "server.log"),
            env={**env, "PORT": str(port)},
            ready_path=settings.plan.load.path,
            start_period=settings.start_period,
        )
