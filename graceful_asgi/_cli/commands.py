"""The table of commands. It imports none of them, nor what they need.

To add one, add a line here and a module of that name, with a `click.Command` named ``command``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Entry(NamedTuple):
    """A command: the extra that it needs, and its help in half a line."""

    extra: str
    """The extra (``graceful-asgi[...]``) that installs all that its module imports."""
    summary: str


COMMANDS: Final[Mapping[str, Entry]] = {
    "run": Entry(
        "run", "Run an app under uvicorn, with workers or without, and lose no request at its stop."
    ),
    "check": Entry("check", "Stop a server under load, and count the requests it loses."),
    "status": Entry(
        "control", "Show the processes of a server: state, what is in flight, the time left."
    ),
    "drain": Entry("control", "Drain a server that keeps running; for a preStop hook."),
    "resume": Entry("control", "End a drain: the server serves again."),
}
