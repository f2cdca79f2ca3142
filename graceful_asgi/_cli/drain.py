"""``graceful-asgi drain``: drains all processes of a server, and waits. For a preStop hook."""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio
import click
from rich.console import Console

from .._control.client import ask
from .._control.protocol import MAX_PERIOD, ControlRequest
from .control_display import show_progress
from .control_options import CONTROL_OPTIONS, opened, refuse_if_all_did
from .values import SECONDS

REASON: Final = "graceful-asgi drain"

HELP: Final = """\
Drain all processes of a server, and return when all are drained. The server keeps running.

From then on readiness says 503, and every response says Connection: close. Requests are still
served. That lasts until the server gets SIGTERM, or until `graceful-asgi resume`.

Exit code: 0 every process is drained; 1 work was still in flight at the end of the grace period, or
a process has ended, was resumed, or does not answer; 2 no drain was begun.
"""


@click.command(
    "drain",
    help=HELP,
    params=[
        *CONTROL_OPTIONS,
        click.Option(
            ["--resume-after"],
            type=SECONDS,
            metavar="SECONDS",
            help="Undo the drain if no stop has come after so many seconds.",
        ),
    ],
)
def command(control_dir: str | None, server: str | None, resume_after: float | None) -> int:
    """Drain a server; return the exit code."""
    if resume_after is not None and resume_after > MAX_PERIOD:
        raise click.UsageError(f"--resume-after: {MAX_PERIOD:.0f} s at the most")
    request = ControlRequest(command="drain", reason=REASON, wait=True, resume_after=resume_after)
    with opened(control_dir, server, one=True) as (directory, names):
        with show_progress(Console(), names) as on_answer:
            answers = anyio.run(partial(ask, directory, names, request, on_answer))
        refuse_if_all_did(answers)
    return 0 if all(answer.outcome == "clean" for answer in answers) else 1
