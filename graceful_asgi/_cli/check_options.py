"""The options of ``graceful-asgi check``, with their defaults and what they mean. No behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from .._check.scenarios import NAMES
from .values import HEADER, MILLISECONDS, PATH, PICTURE, SECONDS, SIGNAL

_F = TypeVar("_F", bound=Callable[..., Any])

HELP: Final = """\
Start a server, put load on it, send it SIGTERM, and count the requests that it loses.

\b
  graceful-asgi check main:app [UVICORN OPTIONS]
  graceful-asgi check -- COMMAND ...

The first form runs an app under uvicorn, as it stands. The second runs any server's command, in any
language: {port} in it is replaced by the port to listen on, which is in the environment as PORT,
too. Only 127.0.0.1 is used.

A request is lost when it was written on an established connection and no complete answer came. A
connection that is refused is not lost: the client may go elsewhere. What is named by a path option
is checked; what is not is listed as not run.

Exit code: 0 nothing was lost and the server was gone in time, 1 not so, 2 the check could not be
run, 130 it was interrupted.
"""

_OPTIONS: Final = (
    click.option(
        "--compare",
        metavar="COMMAND",
        help="A second server, in alternation, with the same load: a command or an app with its "
        "options, in one string. The exit code is about the first.",
    ),
    click.option("--rounds", type=click.IntRange(1, 1000), default=1, help="Runs of each server."),
    click.option("--signal", "number", type=SIGNAL, default="SIGTERM", help="A name or a number."),
    click.option(
        "--deadline",
        type=SECONDS,
        default=30.0,
        help="From the signal to when the server has to be gone; it is killed then. "
        "Kubernetes gives 30 s.",
    ),
    click.option(
        "--signal-after", type=SECONDS, default=3.0, help="Seconds of load before the signal."
    ),
    click.option(
        "--start-period",
        type=SECONDS,
        default=30.0,
        help="How long the server may take until it answers.",
    ),
    click.option(
        "--keep-alive",
        type=click.IntRange(0, 20_000),
        default=100,
        help="Clients that keep their connection.",
    ),
    click.option(
        "--fresh",
        type=click.IntRange(0, 20_000),
        default=50,
        help="Clients that open a connection for each request.",
    ),
    click.option(
        "--think",
        type=MILLISECONDS,
        default=20.0,
        help="A client pauses for 0 to this many ms between two requests.",
    ),
    click.option("--path", type=PATH, default="/", help="What the load asks for."),
    click.option("--slow-path", type=PATH, help="A GET that takes a second or more."),
    click.option("--stream-path", type=PATH, help="A GET whose body takes a second or more."),
    click.option("--upload-path", type=PATH, help="A POST that reads its body."),
    click.option("--sse-path", type=PATH, help="A GET that gives an endless text/event-stream."),
    click.option("--ws-path", type=PATH, help="A WebSocket that stays open."),
    click.option("--hang-path", type=PATH, help="A GET that never answers: is the deadline kept?"),
    click.option(
        "--header",
        "headers",
        type=HEADER,
        multiple=True,
        help="Sent with every request; may be repeated.",
    ),
    click.option(
        "--allow-status",
        "statuses",
        type=click.IntRange(500, 599),
        multiple=True,
        help="A 5xx that the server answers on purpose while it stops; may be repeated.",
    ),
    click.option(
        "--skip",
        type=click.Choice(NAMES),
        multiple=True,
        help="A scenario to leave out; may be repeated.",
    ),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="The verdict as JSON on standard output, and nothing else there.",
    ),
    click.option(
        "--plot",
        type=PICTURE,
        help="Draw the run with the most losses, as .svg or .png.",
    ),
)


def check_options(function: _F) -> _F:
    """Decorate a function with all of them, in the order in which they are listed."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
