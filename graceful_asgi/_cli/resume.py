"""``graceful-asgi resume``: resumes all processes of a server from their drain."""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio
import click

from .._control.client import Answer, ask
from .._control.protocol import ControlRequest
from ..text import printable
from .control_display import write_line
from .control_options import CONTROL_OPTIONS, opened, refuse_if_all_did

HELP: Final = """\
End a drain: all processes of the server serve again.

A process that has got a stop (SIGTERM) goes on stopping.

Exit code: 0 every process serves, 1 a process is stopping or does not answer, 2 no process is there
to ask.
"""


@click.command("resume", help=HELP, params=[*CONTROL_OPTIONS])
def command(control_dir: str | None, server: str | None) -> int:
    """Resume a server; return the exit code."""
    with opened(control_dir, server, one=True) as (directory, names):
        answers = anyio.run(partial(ask, directory, names, ControlRequest(command="resume")))
        refuse_if_all_did(answers)
    for answer in answers:
        write_line(f"process {answer.name.pid}: {_state(answer)}")
    return 0 if all(_serves(answer) for answer in answers) else 1


def _serves(answer: Answer) -> bool:
    return answer.state == "answered" and answer.process.get("phase") == "serving"


def _state(answer: Answer) -> str:
    if answer.state != "answered":
        return answer.error
    if not _serves(answer):
        return f"stopping ({printable(str(answer.process.get('phase')))}), not resumed"
    return "serving again" if answer.fields.get("resumed") else "was serving already"
