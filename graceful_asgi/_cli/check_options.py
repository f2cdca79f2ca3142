"""The options of ``graceful-asgi check``, with their defaults and what they mean. No behaviour."""

from __future__ import annotations

from typing import Final

import click

from .._check.scenarios import NAMES
from .values import BODY, HEADER, LATENCY, MILLISECONDS, PATH, PICTURE, SECONDS, SIGNAL, TARGET, XML

HELP: Final = """\
Start a server, put load on it, send it SIGTERM, and count the requests that it loses.

\b
  graceful-asgi check main:app [UVICORN OPTIONS]
  graceful-asgi check -- COMMAND ...

The first form runs an app under uvicorn. The second runs the command of any server, in any
language. {port} in the command is replaced by the port to listen on, which PORT in the environment
has as well. Only 127.0.0.1 is used.

A request is lost when it was written on an established connection and no complete answer came. An
answer is wrong when it is complete, but differs from the answers before the load. A refused
connection is not lost: the client may go elsewhere. Each path option adds a scenario. A scenario
without its path is listed as "not run".

Exit code: 0 nothing was lost or wrong, and the server was gone in time; 1 the server failed; 2 the
check could not be run, or not all of it; 130 it was interrupted.
"""

CHECK_OPTIONS: Final = (
    click.Option(
        ["--compare"],
        metavar="COMMAND",
        help="A second server, in alternation, with the same load: a command or an app with its "
        "options, in one string. The exit code is about the first.",
    ),
    click.Option(
        ["--rounds"], type=click.IntRange(1, 1000), default=1, help="Runs of each server."
    ),
    click.Option(
        ["--until"],
        type=click.IntRange(0),
        default=0,
        metavar="REQUESTS",
        help="Go on with rounds until the stops of each server could have lost so many requests.",
    ),
    click.Option(
        ["--signal", "number"], type=SIGNAL, default="SIGTERM", help="A name or a number."
    ),
    click.Option(
        ["--deadline"],
        type=SECONDS,
        default=30.0,
        help="Seconds from the signal until the server must be gone. Then it is killed. "
        "Kubernetes gives 30 s.",
    ),
    click.Option(
        ["--signal-after"], type=SECONDS, default=3.0, help="Seconds of load before the signal."
    ),
    click.Option(
        ["--start-period"],
        type=SECONDS,
        default=30.0,
        help="Seconds that the server may take until it answers.",
    ),
    click.Option(
        ["--keep-alive", "keep_alive_clients"],
        type=click.IntRange(0, 20_000),
        default=100,
        help="Clients that keep their connection.",
    ),
    click.Option(
        ["--fresh", "fresh_clients"],
        type=click.IntRange(0, 20_000),
        default=50,
        help="Clients that open a connection for each request.",
    ),
    click.Option(
        ["--latency"],
        type=LATENCY,
        default="0ms",
        help="Length of a round trip to the server, such as 20ms. Loopback has none, so that some "
        "losses cannot happen.",
    ),
    click.Option(
        ["--think", "think_period"],
        type=MILLISECONDS,
        default=20.0,
        help="A client pauses for 0 to this many ms between two requests.",
    ),
    click.Option(
        ["--path"],
        type=TARGET,
        default="/",
        help="Path that the load asks for. A method may stand before any path: 'POST /search'.",
    ),
    click.Option(["--slow-path"], type=TARGET, help="Path that takes a second or more to answer."),
    click.Option(["--stream-path"], type=TARGET, help="Path whose body takes a second or more."),
    click.Option(["--upload-path"], type=TARGET, help="Path that reads the body of a POST."),
    click.Option(
        ["--post-path"], type=TARGET, help="Path for POSTs with --body, on kept-alive connections."
    ),
    click.Option(
        ["--sse-path", "event_stream_path"],
        type=PATH,
        help="Path that answers a GET with an endless event stream.",
    ),
    click.Option(
        ["--sse-post-path", "post_event_stream_path"],
        type=TARGET,
        help="Path that answers a POST with an event stream. It comes whole, or is cut visibly.",
    ),
    click.Option(
        ["--ws-path", "websocket_path"], type=PATH, help="Path of a WebSocket that stays open."
    ),
    click.Option(
        ["--ws-message", "websocket_message"],
        default="graceful-asgi-check",
        metavar="TEXT",
        help="Message that is sent on it. If the server replies, every reply must come.",
    ),
    click.Option(
        ["--ws-push-path", "websocket_push_path"],
        type=PATH,
        help="Path of a WebSocket on which only the server sends.",
    ),
    click.Option(
        ["--hang-path"],
        type=TARGET,
        help="Path that never answers. The deadline counts all the same.",
    ),
    click.Option(
        ["--header", "headers"],
        type=HEADER,
        multiple=True,
        help="Header that is sent with every request; may be repeated.",
    ),
    click.Option(
        ["--body"],
        type=BODY,
        help="Body of the requests, as text or @FILE. Paths without a method are asked by POST.",
    ),
    click.Option(
        ["--expect-status", "right_statuses"],
        type=click.IntRange(200, 599),
        multiple=True,
        help="Status that is right besides 2xx; may be repeated.",
    ),
    click.Option(
        ["--any-body"],
        is_flag=True,
        help="Do not compare bodies with those learned before the load: for answers that vary.",
    ),
    click.Option(
        ["--allow-reject"],
        is_flag=True,
        help="A 5xx with Retry-After after the signal is no fault.",
    ),
    click.Option(
        ["--skip"],
        type=click.Choice(NAMES),
        multiple=True,
        help="Scenario to leave out; may be repeated.",
    ),
    click.Option(
        ["--json", "as_json"],
        is_flag=True,
        help="Write the verdict as JSON to standard output, and nothing else.",
    ),
    click.Option(
        ["--junit", "junit_file"],
        type=XML,
        help="Write the verdict as JUnit XML, for a CI system to show.",
    ),
    click.Option(
        ["--plot"], type=PICTURE, help="Draw the run with the most losses, as .svg or .png."
    ),
)
"""All of them, in the order in which they are listed."""
