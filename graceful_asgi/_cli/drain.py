"""``graceful-asgi drain``: what a preStop hook runs. Begins in all processes, waits for each."""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio
import click
from rich.console import Console

from .._control.client import ask
from .._control.protocol import MAX_PERIOD, Request
from .control_display import progress
from .control_options import control_options, opened, refuse_if_all_did
from .values import SECONDS

REASON: Final = "graceful-asgi drain"

HELP: Final = """\
Drain a server that goes on running: begin in all of its processes, return when all are drained.

Readiness says 503 from here on, every response says Connection: close, and requests are served all
the same, until the server is told to stop or `graceful-asgi resume` is run.

Exit code: 0 every process is drained, 1 work was still in flight at the end of the grace period, or
a process has gone, was resumed, or does not answer, 2 nothing was begun.
"""


@click.command("drain", help=HELP)
@control_options
@click.option(
    "--resume-after",
    type=SECONDS,
    metavar="SECONDS",
    help="Serve again if the server has not been told to stop by then.",
)
def command(control_dir: str | None, server: str | None, resume_after: float | None) -> int:
    """Drain a server; return the exit code."""
    if resume_after is not None and resume_after > MAX_PERIOD:
        raise click.UsageError(f"--resume-after: {MAX_PERIOD:.0f} s at the most")
    request = Request(command="drain", reason=REASON, wait=True, resume_after=resume_after)
    with opened(control_dir, server, one=True) as (directory, names):
        with progress(Console(), names) as heard:
            answers = anyio.run(partial(ask, directory, names, request, heard))
        refuse_if_all_did(answers)
    return 0 if all(answer.outcome == "clean" for answer in answers) else 1
