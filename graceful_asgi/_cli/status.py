"""``graceful-asgi status``: shows the state of each process of a server."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
from rich.console import Console
from rich.live import Live

from .._control.client import Answer, ask
from .._control.protocol import ControlRequest
from ..errors import ControlError
from .control_display import status_lines, status_table
from .control_options import CONTROL_OPTIONS, look, opened, refuse_if_all_did

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._control.directory import ControlDirectory

    Show = Callable[[list[Answer]], None]

REQUEST: Final = ControlRequest(command="status")

WATCH_PERIOD: Final = 1.0
"""Seconds between two rounds of questions."""

HELP: Final = """\
Show the processes of a server: their state, what is in flight, the time that is left.

Shows all servers of the directory, or the one that --server names. A process that does not answer
is shown as such, and delays no other.

Exit code: 0 every process has answered, 1 a process has not, 2 no process is there to ask.
"""


@click.command(
    "status",
    help=HELP,
    params=[
        *CONTROL_OPTIONS,
        click.Option(
            ["--watch"],
            is_flag=True,
            help="Show them again every second, until interrupted or until all have ended.",
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            help='Write one object, {"processes": [...]}; with --watch one for each line.',
        ),
    ],
)
def command(control_dir: str | None, server: str | None, watch: bool, as_json: bool) -> int:
    """Show the processes; return the exit code."""
    with opened(control_dir, server, one=False) as (directory, names):
        answers = anyio.run(ask, directory, names, REQUEST)
        refuse_if_all_did(answers)
        if not watch:
            answers = _without_gone(answers)
            _show(as_json)(answers)
            return 0 if all(answer.state == "answered" for answer in answers) else 1
        anyio.run(_watch, directory, server, as_json)
    return 0


def _without_gone(answers: list[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.state != "gone"]


async def _watch(directory: ControlDirectory, server: str | None, as_json: bool) -> None:
    console = Console(highlight=False)
    if as_json or not console.is_terminal:
        await _look_again(directory, server, _show(as_json))
        return
    with Live(console=console, auto_refresh=False) as live:
        await _look_again(
            directory, server, lambda answers: live.update(status_table(answers), refresh=True)
        )


async def _look_again(directory: ControlDirectory, server: str | None, show: Show) -> None:
    while True:
        try:
            names = look(directory, server, one=False)
        except ControlError:  # all of them have ended
            return
        show(_without_gone(await ask(directory, names, REQUEST)))
        await anyio.sleep(WATCH_PERIOD)


def _show(as_json: bool) -> Show:
    if as_json:
        return _write_json
    console = Console(highlight=False)
    if console.is_terminal:
        return lambda answers: console.print(status_table(answers))
    return lambda answers: _write("\n".join(status_lines(answers)))


def _write_json(answers: list[Answer]) -> None:
    _write(json.dumps({"processes": [_as_json(answer) for answer in answers]}))


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _as_json(answer: Answer) -> dict[str, Any]:
    if answer.process:
        return answer.process
    return {
        "pid": answer.name.pid,
        "server": answer.name.server.pid,
        "phase": None,
        "in_flight": None,
        "error": answer.error,
    }
