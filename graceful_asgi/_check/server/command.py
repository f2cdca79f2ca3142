"""The command under test: an app for uvicorn, or any server; with a port, and with a short name."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from ..errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

_APP: Final = re.compile(r"[\w.]+:[\w.]+")
_LONGEST_NAME: Final = 30

# What an app may not be given, and why: the check has to find the server, and own its process.
_NOT_ALLOWED: Final = {
    "--port": "the check chooses a free port",
    "--host": "the check uses 127.0.0.1",
    "--uds": "the check uses TCP",
    "--fd": "the check uses TCP, on a port of its own",
    "--reload": "a reloader restarts what the check wants to see stop",
}


@dataclass(frozen=True, slots=True)
class Command:
    """The command that starts a server. ``{port}`` in an argument stands for the port."""

    arguments: tuple[str, ...]
    name: str
    """Short enough for the head of a column."""

    def at(self, port: int) -> list[str]:
        """Return the arguments for one port."""
        return [argument.replace("{port}", str(port)) for argument in self.arguments]


def app_command(arguments: Sequence[str]) -> Command:
    """Return the command for ``main:app`` and options, for uvicorn as it is installed here.

    Raises `CommandError` for what is no app, or for an option that the check has to choose.
    """
    app, *options = arguments
    if not _APP.fullmatch(app):
        raise CommandError(
            f"{app!r} is no app: give it as module:attribute (main:app), "
            "or a server's command after --"
        )
    for option in options:
        name = option.partition("=")[0]
        if name in _NOT_ALLOWED:
            raise CommandError(f"{name} is not for you to give: {_NOT_ALLOWED[name]}")
    place = ["--host", "127.0.0.1", "--port", "{port}"]
    module, _, attribute = app.partition(":")
    name = " ".join([f"{module.rpartition('.')[2]}:{attribute}", *options])
    return Command((sys.executable, "-m", "uvicorn", *arguments, *place), _shortened(name))


def any_command(arguments: Sequence[str]) -> Command:
    """Return the command of any server. Raises `CommandError` when it is empty."""
    if not arguments:
        raise CommandError("an empty command starts no server")
    program, *rest = arguments
    return Command(tuple(arguments), _shortened(" ".join([PurePath(program).name, *rest])))


def parse(text: str) -> Command:
    """Take a command or an app apart as a shell would.

    Raises `CommandError` when it is empty or its quotes do not match.
    """
    try:
        arguments = shlex.split(text)
    except ValueError as error:
        raise CommandError(f"{text!r} is no command: {error}") from error
    is_app = bool(arguments) and _APP.fullmatch(arguments[0]) is not None
    return app_command(arguments) if is_app else any_command(arguments)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
