"""The options that ``graceful-asgi run`` has besides uvicorn's own. No behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from .._asgi.options import OPTIONS
from ..errors import PolicyError
from ..option import FLAG
from .values import ParamType

if TYPE_CHECKING:
    from ..option import Option


class _Value(ParamType):
    """The value of an option, read as the environment variable is."""

    def __init__(self, option: Option) -> None:
        self.name = option.name
        self._option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._option.parse(value, called=self._option.flag)
        except PolicyError as error:
            self.fail(str(error), param, ctx)


CONTROL_DIRECTORY: Final = "control_dir"


def drain_options() -> list[click.Option]:
    """Return an option for each of the drain's, and `--control-dir`."""
    return [
        *map(_option, OPTIONS.values()),
        click.Option(
            ["--control-dir", CONTROL_DIRECTORY],
            help="Where each process has a socket for `status`, `drain` and `resume`.  "
            "[GRACEFUL_CONTROL_DIR]",
            metavar="DIRECTORY",
            allow_from_autoenv=False,
        ),
    ]


def _option(option: Option) -> click.Option:
    help_text = f"{option.summary}  [{option.variable}; default: {_shown(option.default)}]"
    # The variable is read where the server starts. What click reads by itself are uvicorn's.
    if option.kind is FLAG:
        flags = f"{option.flag}/--no-{option.flag[2:]}"
        return click.Option(
            [flags, option.name], default=None, help=help_text, allow_from_autoenv=False
        )
    return click.Option(
        [option.flag, option.name],
        type=_Value(option),
        metavar=option.kind.metavar,
        help=help_text,
        allow_from_autoenv=False,
    )


def _shown(default: object) -> str:
    """Return *default* as a command line takes it."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"{default:g}" if isinstance(default, float) else str(default)
