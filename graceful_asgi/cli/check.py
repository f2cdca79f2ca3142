"""``graceful-asgi check``: from the command line to a check, from its verdict to an exit code."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
from rich.console import Console

from graceful_asgi.check.command import any_command, app_command, parse
from graceful_asgi.check.display import ConsoleProgress, print_table, styled
from graceful_asgi.check.errors import CheckError, CommandError
from graceful_asgi.check.limits import allow_connections
from graceful_asgi.check.plan import LoadPlan
from graceful_asgi.check.report import report
from graceful_asgi.check.rounds import Contestant, Settings, run_rounds
from graceful_asgi.check.scenarios import NAMES
from graceful_asgi.check.summary import SIDES_NOTE, headline, not_run, sections
from graceful_asgi.cli.group import needs
from graceful_asgi.cli.options import HEADER, MILLISECONDS, PATH, PICTURE, SECONDS, SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Draw = Callable[[Path, Sequence[Contestant]], None]

_POISE_PERIOD: Final = 0.5
"""Seconds before the signal: when the requests are sent that are to be in flight at it."""

HELP: Final = """\
Start a server, put load on it, send it SIGTERM, and count the requests that it loses.

\b
  graceful-asgi check main:app [UVICORN OPTIONS]
  graceful-asgi check -- COMMAND ...

The first form runs an app under uvicorn, as it stands. The second runs any server's command, in any
language: {port} in it is replaced by the port to listen on, which is in the environment as PORT,
too. Only 127.0.0.1 is used.

A request is lost when it was written on an established connection and no complete answer came. A
connection that is refused is not lost: the client may go elsewhere. What is named by a path option
is checked; what is not is listed as not run.

Exit code: 0 nothing was lost and the server was gone in time, 1 not so, 2 the check could not be
run, 130 it was interrupted.
"""


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
)
@click.argument("app", nargs=-1, metavar="[APP [UVICORN OPTIONS]] [-- COMMAND ...]")
@click.option(
    "--compare",
    metavar="COMMAND",
    help="A second server, in alternation, with the same load: a command or an app with its "
    "options, in one string. The exit code is about the first.",
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=1, help="Runs of each server.")
@click.option("--signal", "number", type=SIGNAL, default="SIGTERM", help="A name or a number.")
@click.option(
    "--deadline",
    type=SECONDS,
    default=30.0,
    help="From the signal to when the server has to be gone; it is killed then. "
    "Kubernetes gives 30 s.",
)
@click.option(
    "--signal-after", type=SECONDS, default=3.0, help="Seconds of load before the signal."
)
@click.option(
    "--start-period",
    type=SECONDS,
    default=30.0,
    help="How long the server may take until it answers.",
)
@click.option(
    "--keep-alive",
    type=click.IntRange(0, 20_000),
    default=100,
    help="Clients that keep their connection.",
)
@click.option(
    "--fresh",
    type=click.IntRange(0, 20_000),
    default=50,
    help="Clients that open a connection for each request.",
)
@click.option(
    "--think",
    type=MILLISECONDS,
    default=20.0,
    help="A client pauses for 0 to this many ms between two requests.",
)
@click.option("--path", type=PATH, default="/", help="What the load asks for.")
@click.option("--slow-path", type=PATH, help="A GET that takes a second or more.")
@click.option("--stream-path", type=PATH, help="A GET whose body takes a second or more.")
@click.option("--upload-path", type=PATH, help="A POST that reads its body.")
@click.option("--sse-path", type=PATH, help="A GET that gives an endless text/event-stream.")
@click.option("--ws-path", type=PATH, help="A WebSocket that stays open.")
@click.option("--hang-path", type=PATH, help="A GET that is never answered: is the deadline kept?")
@click.option(
    "--header",
    "headers",
    type=HEADER,
    multiple=True,
    help="Sent with every request; may be repeated.",
)
@click.option(
    "--allow-status",
    "statuses",
    type=click.IntRange(500, 599),
    multiple=True,
    help="A 5xx that the server answers on purpose while it stops; may be repeated.",
)
@click.option(
    "--skip",
    type=click.Choice(NAMES),
    multiple=True,
    help="A scenario to leave out; may be repeated.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The verdict as JSON on standard output, and nothing else there.",
)
@click.option(
    "--plot",
    type=PICTURE,
    help="Draw the run with the most losses, as .svg or .png.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    app: tuple[str, ...],
    compare: str | None,
    as_json: bool,
    plot: Path | None,
    **options: Any,
) -> int:
    """Check one server, or two; return the exit code."""
    contestants = _contestants(app, ctx.meta.get(__name__), compare)
    settings = _settings(**options)
    draw = _picture() if plot is not None else None
    # With --json, standard output is for the verdicts alone.
    console = Console(stderr=as_json, highlight=False)
    try:
        allow_connections(settings.plan)
        progress = ConsoleProgress(console, rounds=settings.rounds)
        anyio.run(run_rounds, contestants, settings, progress)
    except CheckError as error:
        raise click.ClickException(str(error)) from error
    except asyncio.CancelledError:  # how anyio tells of Ctrl+C on Python 3.10
        raise KeyboardInterrupt from None
    if draw is not None and plot is not None:
        _draw(draw, plot, contestants)
    if as_json:
        sys.stdout.write(json.dumps(report(contestants, settings), indent=2) + "\n")
    else:
        _print(console, contestants, settings)
    return 0 if contestants[0].verdict.clean else 1


def _contestants(
    app: Sequence[str], server: Sequence[str] | None, compare: str | None
) -> list[Contestant]:
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
    return [Contestant(command) for command in commands]


def _settings(
    *,
    rounds: int,
    number: int,
    deadline: float,
    signal_after: float,
    start_period: float,
    skip: Sequence[str],
    **options: Any,
) -> Settings:
    return Settings(
        plan=_plan(single_after=max(0.0, signal_after - _POISE_PERIOD), **options),
        rounds=rounds,
        signal=number,
        signal_after=signal_after,
        deadline=deadline,
        start_period=start_period,
        skip=frozenset(skip),
    )


def _plan(
    *,
    keep_alive: int,
    fresh: int,
    think: float,
    sse_path: str | None,
    ws_path: str | None,
    headers: Sequence[tuple[str, str]],
    statuses: Sequence[int],
    **options: Any,
) -> LoadPlan:
    return LoadPlan(
        keep_alive_clients=keep_alive,
        fresh_clients=fresh,
        think_period=think / 1000,
        event_stream_path=sse_path,
        websocket_path=ws_path,
        headers=tuple(headers),
        deliberate_statuses=frozenset(statuses),
        **options,
    )


def _picture() -> Draw:
    """Before the check: it would be a pity to find out after it that there is no matplotlib."""
    with needs("check", "--plot"):
        from graceful_asgi.check.picture import draw  # takes a second

    return draw


def _draw(draw: Draw, path: Path, contestants: Sequence[Contestant]) -> None:
    try:
        draw(path, contestants)
    except OSError as error:
        raise click.ClickException(f"--plot {path}: {error}") from error


def _print(console: Console, contestants: Sequence[Contestant], settings: Settings) -> None:
    verdicts = [contestant.verdict for contestant in contestants]
    names = [contestant.command.name for contestant in contestants]
    print_table(console, names, sections(verdicts))
    console.print(SIDES_NOTE, style="dim")
    if missing := not_run(verdicts):
        console.print(f"not run: {missing}", markup=False)
    for name, verdict in zip(names, verdicts, strict=True):
        console.print(styled(headline(name, verdict, deadline=settings.deadline)))
