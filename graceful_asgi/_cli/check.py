"""``graceful-asgi check``: from the command line to a check, from its verdict to an exit code."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
from rich.console import Console
from rich.text import Text

from .._check.client.limits import allow_connections
from .._check.client.plan import LoadPlan
from .._check.console import ConsoleProgress, print_table, styled
from .._check.errors import CheckError, CommandError
from .._check.result.junit import junit, junit_of_error
from .._check.result.text import (
    client_use,
    headline,
    not_run,
    right_answers,
    sections,
    signal_name,
    worth,
)
from .._check.result.verdict import Target, report
from .._check.rounds import Settings, run_rounds
from .._check.server.command import any_command, app_command, parse
from .check_options import CHECK_OPTIONS, HELP
from .group import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .._check.result.verdict import Verdict

_POISE_PERIOD: Final = 0.5
"""Seconds before the signal: when the requests are sent that are to be in flight at it."""


class _CheckCommand(click.Command):
    """Options may stand on either side of the app; what follows ``--`` is a server's command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[__name__] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(
    "check",
    cls=_CheckCommand,
    help=HELP,
    context_settings={"ignore_unknown_options": True, "show_default": True},
    params=[
        click.Argument(["app"], nargs=-1, metavar="[APP [UVICORN OPTIONS]] [-- COMMAND ...]"),
        *CHECK_OPTIONS,
    ],
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    app: tuple[str, ...],
    compare: str | None,
    as_json: bool,
    plot: Path | None,
    junit_file: Path | None,
    **options: Any,
) -> int:
    """Check one server, or two; return the exit code."""
    targets = _targets(app, ctx.meta.get(__name__), compare)
    settings = _settings(**options)
    draw = _picture() if plot is not None else None
    # With --json, standard output is for the verdicts alone.
    console = Console(stderr=as_json, highlight=False)
    try:
        allow_connections(settings.plan)
        progress = ConsoleProgress(console, rounds=0 if settings.until else settings.rounds)
        anyio.run(run_rounds, targets, settings, progress)
    except CheckError as error:
        if junit_file is not None:
            names = [target.command.name for target in targets]
            with _writing("--junit", junit_file):
                junit_file.write_text(junit_of_error(names, str(error)), encoding="utf-8")
        raise click.ClickException(str(error)) from error
    if as_json:
        sys.stdout.write(json.dumps(report(targets, settings.as_dict()), indent=2) + "\n")
    else:
        _print(console, targets, settings)
    if junit_file is not None:
        with _writing("--junit", junit_file):
            junit_file.write_text(junit(targets), encoding="utf-8")
    if draw is not None and plot is not None:
        with _writing("--plot", plot):
            draw(plot, targets, signal=signal_name(settings.signal))
        console.print(Text(f"picture: {plot.absolute()}"))
    return exit_status(targets[0].verdict)


def exit_status(verdict: Verdict) -> int:
    """Return 0 for a server that passed, 1 for one that failed, 2 where that is not known."""
    if verdict.faults:
        return 1
    return 2 if verdict.untested else 0


def _targets(app: Sequence[str], server: Sequence[str] | None, compare: str | None) -> list[Target]:
    if app and app[0].startswith("-"):
        raise click.UsageError(f"no such option: {app[0]} (options of uvicorn go behind the app)")
    if app and server is not None:
        raise click.UsageError(f"give an app ({app[0]}) or a command after --, not both")
    if not (app or server):
        raise click.UsageError("give an app (main:app), or a server's command after --")
    try:
        commands = [any_command(server) if server else app_command(app)]
        if compare is not None:
            commands.append(parse(compare))
    except CommandError as error:
        raise click.UsageError(str(error)) from error
    return [Target(command) for command in commands]


def _settings(
    *,
    number: int,
    rounds: int,
    until: int,
    deadline: float,
    signal_after: float,
    start_period: float,
    skip: Sequence[str],
    think_period: float,
    right_statuses: Sequence[int],
    **options: Any,
) -> Settings:
    """Return the settings. What remains in *options* are fields of the plan under their names."""
    plan = LoadPlan(
        single_after=max(0.0, signal_after - _POISE_PERIOD),
        think_period=think_period / 1000,
        right_statuses=frozenset(right_statuses),
        **options,
    )
    return Settings(
        plan=plan,
        signal=number,
        rounds=rounds,
        until=until,
        deadline=deadline,
        signal_after=signal_after,
        start_period=start_period,
        skip=frozenset(skip),
    )


def _picture() -> Callable[..., None]:
    """Import the drawing, which takes a second.

    Called before the check is run: a missing matplotlib should not be found out after it.
    """
    with needs("plot", "--plot"):
        from .._check.result.picture import draw

    return draw


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    """Name the option and the file in the error of a block that writes the file."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{option} {path}: {error}") from error


def _print(console: Console, targets: Sequence[Target], settings: Settings) -> None:
    verdicts = [target.verdict for target in targets]
    names = [target.command.name for target in targets]
    print_table(console, names, sections(verdicts))
    console.print("right answers, as learned before the load:")
    for line in right_answers(names, verdicts):
        console.print(Text(f"  {line}"))
    if missing := not_run(verdicts):
        console.print(Text(f"not run: {missing}"))
    for note in dict.fromkeys(note for verdict in verdicts for note in verdict.notes):
        console.print(Text(f"note: {note}"))
    console.print(styled(client_use(verdicts)))
    for name, verdict in zip(names, verdicts, strict=True):
        console.print(styled(headline(name, verdict, deadline=settings.deadline)))
        if said := worth(verdict):
            console.print(Text(said))
