"""The table of commands. It imports none of them, nor what they need.

A command is added by a line here and a module with a `click.Command` named ``command``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: its module, the extra that it needs, and its help in half a line."""

    module: str
    extra: str
    """The extra (``graceful-asgi[...]``) that installs all that the module imports."""
    summary: str


COMMANDS: Final[Mapping[str, Entry]] = {
    "run": Entry(
        "graceful_asgi._cli.run",
        "run",
        "Run an app under uvicorn, with workers or without, and lose no request at its stop.",
    ),
    "check": Entry(
        "graceful_asgi._cli.check",
        "check",
        "Stop a server under load, and count the requests it loses.",
    ),
    "status": Entry(
        "graceful_asgi._cli.status",
        "control",
        "Show the processes of a server: state, what is in flight, the time left.",
    ),
    "drain": Entry(
        "graceful_asgi._cli.drain",
        "control",
        "Drain a server that keeps running; for a preStop hook.",
    ),
    "resume": Entry(
        "graceful_asgi._cli.resume", "control", "End a drain: the server serves again."
    ),
}
