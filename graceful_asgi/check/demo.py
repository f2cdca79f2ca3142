"""The demo: uvicorn, plain and with the middleware, told to stop in the middle of the same load."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from rich.console import Console

from graceful_asgi.check.display import TrialProgress, print_table
from graceful_asgi.check.errors import CheckError
from graceful_asgi.check.plan import LoadPlan
from graceful_asgi.check.port import free_port
from graceful_asgi.check.process import ServerProcess
from graceful_asgi.check.summary import rows, sentence
from graceful_asgi.check.trial import Trial, run_trial
from graceful_asgi.check.verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Contestant:
    """One column of the demo."""

    title: str
    app: str
    """An import string for uvicorn."""


PLAIN: Final = Contestant("plain uvicorn", "graceful_asgi.check.demo_app:plain")
GRACEFUL: Final = Contestant("with graceful_asgi", "graceful_asgi.check.demo_app:graceful")

# The slow request (2 s) and the stream (3 s) begin a second before the signal: both are in flight.
PLAN: Final = LoadPlan(keep_alive_clients=100, fresh_clients=50, single_after=2.0)
SIGNAL_AFTER: Final = 3.0
EXIT_PERIOD: Final = 20.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    rounds: int
    as_json: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code: 0 when the graceful server's verdict is clean."""
    options = _parse(arguments)
    # With --json, standard output is for the verdicts alone.
    console = Console(stderr=options.as_json, highlight=False)
    try:
        plain, graceful = anyio.run(run_demo, console, options.rounds)
    except CheckError as error:
        Console(stderr=True, highlight=False).print(
            f"The demo could not run: {error}", markup=False
        )
        return 1
    if options.as_json:
        verdicts = {"plain": plain.as_dict(), "graceful": graceful.as_dict()}
        sys.stdout.write(json.dumps(verdicts, indent=2) + "\n")
    else:
        print_table(console, [PLAIN.title, GRACEFUL.title], rows([plain, graceful]))
        console.print(sentence(plain, graceful))
    return 0 if graceful.clean else 1


async def run_demo(console: Console, rounds: int) -> tuple[Verdict, Verdict]:
    """Both servers, in turn, `rounds` times. Raises `CheckError` when one cannot be run."""
    plain: list[Trial] = []
    graceful: list[Trial] = []
    for number in range(1, rounds + 1):
        if rounds > 1:
            console.print(f"round {number} of {rounds}")
        plain.append(await _trial(PLAIN, console))
        graceful.append(await _trial(GRACEFUL, console))
    return judge(plain), judge(graceful)


async def _trial(contestant: Contestant, console: Console) -> Trial:
    with (
        tempfile.TemporaryDirectory(prefix="graceful-asgi-") as directory,
        TrialProgress(console, title=contestant.title) as progress,
    ):
        server = _server(contestant, Path(directory, "server.log"))
        trial = await run_trial(
            server,
            PLAN,
            signal_after=SIGNAL_AFTER,
            exit_period=EXIT_PERIOD,
            watch=progress.watch,
        )
        log = server.log_tail()
    if log:
        console.print(f"log of {contestant.title}, its end:", log, sep="\n", markup=False)
    return trial


def _server(contestant: Contestant, log_path: Path) -> ServerProcess:
    port = free_port()
    uvicorn = [sys.executable, "-m", "uvicorn", contestant.app]
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return ServerProcess([*uvicorn, *options], port=port, log_path=log_path)


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m graceful_asgi.check",
        description="Tell two uvicorn servers to stop under load, and count what each one loses.",
    )
    parser.add_argument(
        "--rounds", type=_positive, default=1, metavar="N", help="trials of each server (default 1)"
    )
    parser.add_argument(
        "--json", action="store_true", help="verdicts as JSON; progress goes to standard error"
    )
    parsed = parser.parse_args(arguments)
    return Options(rounds=parsed.rounds, as_json=parsed.json)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: must be 1 or more")
    return number
