"""The options of ``graceful-asgi check``, with their defaults and what they mean. No behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from .._check.scenarios import NAMES
from .values import (
    BODY,
    HEADER,
    LATENCY,
    MILLISECONDS,
    PATH,
    PICTURE,
    SECONDS,
    SIGNAL,
    TARGET,
    XML,
)

_F = TypeVar("_F", bound=Callable[..., Any])

HELP: Final = """\
Start a server, put load on it, send it SIGTERM, and count the requests that it loses.

\b
  graceful-asgi check main:app [UVICORN OPTIONS]
  graceful-asgi check -- COMMAND ...

The first form runs an app under uvicorn, as it stands. The second runs any server's command, in any
language: {port} in it is replaced by the port to listen on, which is in the environment as PORT,
too. Only 127.0.0.1 is used.

A request is lost when it was written on an established connection and no complete answer came. An
answer is wrong when it is complete, but not like those that came before there was any load. A
connection that is refused is not lost: the client may go elsewhere. What is named by a path option
is checked; what is not is listed as not run.

Exit code: 0 nothing was lost or wrong and the server was gone in time, 1 not so, 2 the check could
not be run or not all of it, 130 it was interrupted.
"""

_OPTIONS: Final = (
    click.option(
        "--compare",
        metavar="COMMAND",
        help="A second server, in alternation, with the same load: a command or an app with its "
        "options, in one string. The exit code is about the first.",
    ),
    click.option("--rounds", type=click.IntRange(1, 1000), default=1, help="Runs of each server."),
    click.option(
        "--until",
        type=click.IntRange(0),
        default=0,
        metavar="REQUESTS",
        help="Go on with rounds until the stops of each server could have lost so many requests.",
    ),
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
        "--latency",
        type=LATENCY,
        default="0ms",
        help="What a round trip to the server takes: 20ms. Loopback takes none, which flatters.",
    ),
    click.option(
        "--think",
        type=MILLISECONDS,
        default=20.0,
        help="A client pauses for 0 to this many ms between two requests.",
    ),
    click.option(
        "--path",
        type=TARGET,
        default="/",
        help="What the load asks for. A method may stand before a path: 'POST /search'.",
    ),
    click.option("--slow-path", type=TARGET, help="Takes a second or more to answer."),
    click.option("--stream-path", type=TARGET, help="Has a body that takes a second or more."),
    click.option("--upload-path", type=TARGET, help="A POST that reads its body."),
    click.option(
        "--post-path", type=TARGET, help="Takes POSTs with --body, on connections that are kept."
    ),
    click.option("--sse-path", type=PATH, help="A GET that gives an endless text/event-stream."),
    click.option(
        "--sse-post-path",
        type=TARGET,
        help="A POST with --body that gives a text/event-stream: comes whole, or is visibly cut.",
    ),
    click.option("--ws-path", type=PATH, help="A WebSocket that stays open."),
    click.option(
        "--ws-message",
        default="graceful-asgi-check",
        metavar="TEXT",
        help="What is sent on it. Where the server replies, every reply has to come.",
    ),
    click.option("--ws-push-path", type=PATH, help="A WebSocket on which the server sends alone."),
    click.option("--hang-path", type=TARGET, help="Never answers: is the deadline kept?"),
    click.option(
        "--header",
        "headers",
        type=HEADER,
        multiple=True,
        help="Sent with every request; may be repeated.",
    ),
    click.option(
        "--body",
        type=BODY,
        help="A body in words, or @FILE. Makes a POST of what has no method before its path.",
    ),
    click.option(
        "--expect-status",
        "statuses",
        type=click.IntRange(200, 599),
        multiple=True,
        help="A status that is right though it is no 2xx; may be repeated.",
    ),
    click.option(
        "--any-body",
        is_flag=True,
        help="Do not compare bodies with those learned before the load: for answers that vary.",
    ),
    click.option(
        "--allow-reject",
        is_flag=True,
        help="A 5xx with a Retry-After is no fault once the server has been told to stop.",
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
        "--junit",
        "junit_file",
        type=XML,
        help="Write the verdict as JUnit XML, for a CI system to show.",
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
