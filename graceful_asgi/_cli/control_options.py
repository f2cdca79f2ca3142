"""Options of ``status``, ``drain`` and ``resume``: the directory, and the server in it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from .._control import CONTROL_DIR
from .._control.directory import ControlDirectory, select
from ..errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._control.client import Answer
    from .._control.directory import SocketName

CONTROL_OPTIONS: Final = (
    click.Option(
        ["--control-dir"],
        envvar=CONTROL_DIR,
        metavar="DIRECTORY",
        help=f"The directory with the control sockets of the server.  [{CONTROL_DIR}]",
    ),
    click.Option(
        ["--server"],
        metavar="PID",
        help="Which server, if the directory has more than one: the pid of the workers' parent, or "
        "of the only process.",
    ),
)


@contextmanager
def opened(
    control_dir: str | None, server: str | None, *, one: bool
) -> Iterator[tuple[ControlDirectory, list[SocketName]]]:
    """Give the directory and the selected sockets in it. Removes sockets of processes that ended.

    Raises:
        click.ClickException: the directory cannot be used, no process is there, or it is not clear
            which server is meant.
    """
    if not control_dir:
        raise click.UsageError(f"give --control-dir, or set {CONTROL_DIR}")
    try:
        with ControlDirectory(control_dir, source="--control-dir") as directory:
            yield directory, look(directory, server, one=one)
    except ControlError as error:
        raise click.ClickException(str(error)) from error


def look(directory: ControlDirectory, server: str | None, *, one: bool) -> list[SocketName]:
    """Return the selected sockets that are there now. Raises `ControlError` as `select` does."""
    directory.clean_up()
    try:
        return select(directory.names(), server, one=one)
    except ControlError as error:
        raise ControlError(f"{directory.path}: {error}") from error


def refuse_if_all_did(answers: list[Answer]) -> None:
    """Raise `click.ClickException` if it is certain that no process has done what was asked."""
    if all(answer.state == "refused" or answer.was_gone for answer in answers):
        why = {f"process {answer.name.pid}: {answer.error}" for answer in answers}
        raise click.ClickException("; ".join(sorted(why)))
