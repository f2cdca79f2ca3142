"""The options that ``graceful-asgi run`` has besides uvicorn's own. No behaviour."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import click

from .._asgi.precedence import OPTIONS
from ..option import FLAG
from .values import Value

if TYPE_CHECKING:
    from ..option import Option


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
        type=Value(option.name, partial(option.parse, called=option.flag)),
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


DRAIN_OPTIONS: Final = (
    *map(_option, OPTIONS.values()),
    click.Option(
        ["--control-dir"],
        help="Where each process has a socket for `status`, `drain` and `resume`.  "
        "[GRACEFUL_CONTROL_DIR]",
        metavar="DIRECTORY",
        allow_from_autoenv=False,
    ),
)
"""One for each option of the drain, and `--control-dir`."""
