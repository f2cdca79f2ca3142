"""``graceful-asgi``: the group of commands. A command's module is imported when it is called."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..errors import naming_extra
from .commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needs(extra: str, who: str) -> Iterator[None]:
    """Import in a block what *extra* installs.

    Raises:
        click.ClickException: a module is missing; the message says how to install it.
    """
    try:
        with naming_extra(extra, who):
            yield
    except ModuleNotFoundError as error:
        if error.__cause__ is None:
            raise
        raise click.ClickException(str(error)) from error


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports none to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command. Raises `click.ClickException` where it cannot be called."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if sys.platform == "win32":
            raise click.ClickException(f"`{cmd_name}` needs signals that Windows does not have")
        with needs(entry.extra, f"`{cmd_name}`"):
            module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands as the table describes them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Graceful shutdown for ASGI apps on uvicorn: loses no request, is gone by its deadline.",
)
@click.version_option(package_name="graceful-asgi")
def group() -> None:
    """Hold all commands."""
