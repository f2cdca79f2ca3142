"""Losses of each server when it is told to stop, in alternation under one load: `make bench`.

Writes the table between the markers of docs/explanation/servers.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import anyio
from rich.console import Console
from support.trial import detail

from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.console import ConsoleProgress
from graceful_asgi._check.errors import CheckError
from graceful_asgi._check.result.text import exit_code
from graceful_asgi._check.result.verdict import Target
from graceful_asgi._check.rounds import Settings, run_rounds
from graceful_asgi._check.scenarios import NAMES
from graceful_asgi._check.server.command import Command

from .contestants import Entrant, entrants

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "servers.md"
COMPARED = frozenset({"keep-alive", "fresh connections", "slow request", "streaming download"})

PLAN = LoadPlan(
    keep_alive_clients=100,
    fresh_clients=50,
    think_period=0.02,
    slow_path="/slow",
    stream_path="/stream",
    single_after=0.5,
    answer_period=5.0,
)
SETTINGS = Settings(plan=PLAN, signal_after=1.5, deadline=8.0, skip=frozenset(NAMES) - COMPARED)

# The load itself: what it puts on a server that does next to nothing.
CAPACITY = Settings(
    plan=LoadPlan(keep_alive_clients=200, fresh_clients=0, think_period=0.0),
    signal_after=5.0,
    skip=frozenset(NAMES) - {"keep-alive"},
)


@dataclass(slots=True)
class Line:
    """An entrant, and what was seen of it."""

    entrant: Entrant
    target: Target
    failure: str = ""


async def compare(
    chosen: list[Entrant], rounds: int, console: Console, settings: Settings
) -> list[Line]:
    """Run each in turn, `rounds` times; one that cannot be run takes no further part."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    lines = [
        Line(each, Target(Command(each.command, each.name), {**environment, **dict(each.env)}))
        for each in chosen
    ]
    progress = ConsoleProgress(console, rounds=1)
    for number in range(1, rounds + 1):
        console.print(f"round {number} of {rounds}", style="bold")
        for line in lines:
            if line.entrant.reason or line.failure:
                continue
            try:
                await run_rounds([line.target], settings, progress)
            except CheckError as error:
                line.failure = str(error).splitlines()[0]
    return lines


async def capacity(console: Console) -> tuple[int, float]:
    """Requests per second that the load puts on the fastest server, and seconds of it."""
    command = Command(
        (sys.executable, "-m", "tests.bench.peers.fixed", "{port}"), "the load itself"
    )
    target = Target(command, {**os.environ, "PYTHONPATH": str(ROOT)})
    await run_rounds([target], CAPACITY, ConsoleProgress(console, rounds=1))
    served = target.verdict.load.before.served
    return round(served / CAPACITY.signal_after), CAPACITY.signal_after


def table(lines: list[Line]) -> str:
    """The table, those who lose most last; then who did not take part."""
    seen = [line for line in lines if line.target.trials and not line.failure]
    seen.sort(key=lambda line: (line.target.verdict.lost_total, line.entrant.name))
    rows = [
        "| server | lost | runs with loss | served before / during / after | 5xx "
        "| slow request | download | seconds to exit | exit code |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- | ---: | --- |",
        *(_row(line) for line in seen),
    ]
    absent = [line for line in lines if line not in seen]
    for line in absent:
        reason = line.entrant.reason or line.failure
        rows.append(f"| {line.entrant.name} | not run: {reason} |" + " |" * 7)
    return "\n".join(rows)


def _row(line: Line) -> str:
    verdict = line.target.verdict
    load, trials = verdict.load, line.target.trials
    with_loss = sum(trial.load.total.lost_total > 0 for trial in trials)
    codes = ", ".join(exit_code(code) for code in dict.fromkeys(e.code for e in verdict.ends))
    late = f" ({verdict.late} x killed)" if verdict.late else ""
    sides = " / ".join(f"{c.served:,}" for c in (load.before, load.during, load.after))
    lost = f"**{verdict.lost_total:,}**" if not verdict.lost_total else f"{verdict.lost_total:,}"
    cells = [
        line.entrant.name,
        lost,
        f"{with_loss} of {len(trials)}",
        sides,
        f"{verdict.total.wrong_total:,}",
        detail(verdict, "slow request"),
        detail(verdict, "streaming download"),
        f"{verdict.seconds_to_exit:.1f}{late}",
        codes,
    ]
    return f"| {' | '.join(cells)} |"


def circumstances(lines: list[Line], rounds: int, settings: Settings) -> str:
    """The subject of the measurement, when and where, and under which load."""
    versions = dict.fromkeys(
        version for line in lines for version in line.entrant.version.split(", ") if version
    )
    today = datetime.now(tz=timezone.utc).date()
    release = ".".join(platform.release().split(".")[:2])
    plan = settings.plan
    machine = f"{os.cpu_count()} cores, {platform.system()} {release}"
    return (
        f"{rounds} rounds on {today}; {machine}, Python {platform.python_version()}; "
        f"{', '.join(versions)}. The load: {plan.keep_alive_clients} keep-alive clients, "
        f"{plan.fresh_clients} that open a connection for each request, pauses of up to "
        f"{plan.think_period * 1000:.0f} ms; SIGTERM after {settings.signal_after} s, SIGKILL "
        f"{settings.deadline:g} s after that."
    )


def report(lines: list[Line], rounds: int, rate: tuple[int, float]) -> str:
    """All that stands between the markers."""
    return "\n\n".join(
        [
            circumstances(lines, rounds, SETTINGS),
            table(lines),
            f"The load by itself puts {rate[0]:,} requests per second on a server that writes a "
            f"fixed answer: 200 keep-alive clients without a pause, {rate[1]:g} s, client and "
            "server on the cores above.",
        ]
    )


def write(text: str, path: Path, name: str) -> None:
    """Put *text* between the markers *name* of the page."""
    page = path.read_text(encoding="utf-8")
    part = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    path.write_text(part.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page), encoding="utf-8")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What servers lose when they are told to stop.")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each server")
    parser.add_argument("--only", default="", help="servers whose name contains this; not written")
    options = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="graceful-asgi-") as directory:
        chosen = [each for each in entrants(Path(directory)) if options.only in each.name]
        rate = anyio.run(capacity, console)
        lines = anyio.run(compare, chosen, options.rounds, console, SETTINGS)
    text = report(lines, options.rounds, rate)
    console.print(text, markup=False, soft_wrap=True)
    if not options.only:
        write(text, PAGE, "servers")


if __name__ == "__main__":
    main()
