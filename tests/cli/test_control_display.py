"""The state of a process in words, in which no terminal finds a command."""

from __future__ import annotations

from typing import Any

import click
import pytest

from graceful_asgi._cli.control_display import drain_text, status_cells, status_lines
from graceful_asgi._cli.control_options import refuse_if_all_did
from graceful_asgi._control.client import Answer, State
from graceful_asgi._control.directory import SocketName
from graceful_asgi._control.protocol import Reply
from graceful_asgi._core.server_context import ServerId

SERVER = ServerId(7)


def answer(
    state: State = "answered", error: str = "", server: ServerId = SERVER, **process: Any
) -> Answer:
    given = {"phase": "serving", "in_flight": 0, **process}
    reply = Reply("status", {"process": given}) if state == "answered" else None
    return Answer(SocketName(server, 12), state, reply, error)


def outcome(how: str, **process: Any) -> Answer:
    given = {"phase": "lame duck", "in_flight": 2, **process}
    return Answer(
        SocketName(SERVER, 12),
        "answered",
        Reply("outcome", {"outcome": how, "process": given}),
    )


@pytest.mark.parametrize(
    ("process", "line"),
    [
        ({}, "server 7, process 12: serving, 0 in flight"),
        (
            {"oldest": {"kind": "http", "method": "GET", "path": "/slow", "age": 1.26}},
            "server 7, process 12: serving, 0 in flight, oldest: GET /slow for 1.3 s",
        ),
        (
            {"oldest": {"kind": "task", "method": "", "path": "export", "age": 2}},
            "server 7, process 12: serving, 0 in flight, oldest: export for 2.0 s",
        ),
        (
            {"phase": "lame duck", "in_flight": 3, "gives_up_in": 18.04},
            "server 7, process 12: lame duck, 3 in flight, 18.0 s until it counts as forced",
        ),
        (
            {"phase": "lame duck", "in_flight": 3, "gives_up_in": 0.0},
            "server 7, process 12: lame duck, 3 in flight, past the grace period",
        ),
        (
            {"phase": "lame duck", "drained": True, "gives_up_in": 3.0},
            "server 7, process 12: drained, waiting for a stop",
        ),
        (
            {"phase": "lame duck", "drained": True, "undone_in": 9.0, "gives_up_in": 3.0},
            "server 7, process 12: drained, undone in 9.0 s without a stop",
        ),
        (
            {"phase": "draining", "in_flight": 1, "stopping": True, "time_left": 7.5},
            "server 7, process 12: stopping (draining), 1 in flight, 7.5 s until work is cancelled",
        ),
        (
            {"phase": "cleanup", "drained": True, "stopping": True, "time_left": 4.0},
            "server 7, process 12: stopping (cleanup), 4.0 s left",
        ),
    ],
)
def test_a_process_is_a_line(process: dict[str, Any], line: str) -> None:
    assert status_lines([answer(**process)]) == [line]


def test_a_process_that_says_nothing_is_a_line_too() -> None:
    assert status_lines([answer("silent", "does not answer")]) == [
        "server 7, process 12: does not answer"
    ]


def test_two_servers_of_the_same_pid_are_named_in_full() -> None:
    both = [answer(), answer(server=ServerId(7, "x9"))]
    assert [status_cells(each, both)[0] for each in both] == ["7@0", "7@x9"]


def test_nothing_that_a_client_chose_is_obeyed_by_the_terminal() -> None:
    oldest = {"kind": "http", "method": "GET", "path": "/\x1b[2J\u202e\n", "age": 1.0}
    [line] = status_lines([answer(oldest=oldest, phase="\x1b]0;x\x07")])
    assert line.isprintable()
    assert r"/\x1b[2J\u202e\n" in line


@pytest.mark.parametrize(
    ("drain", "words"),
    [
        (outcome("clean", in_flight=0), "drained"),
        (outcome("forced"), "not drained in time, 2 still in flight"),
        (outcome("resumed"), "resumed by somebody else, 2 in flight"),
        (outcome(""), "draining, 2 in flight"),
        (answer("gone", "is gone"), "is gone"),
    ],
)
def test_a_drain_is_shown_in_words(drain: Answer, words: str) -> None:
    assert drain_text(drain) == words


def test_only_where_nothing_was_begun_it_could_not_be_done() -> None:
    refused, gone = answer("refused", "not you"), answer("gone", "is gone")
    with pytest.raises(click.ClickException, match="process 12: is gone; process 12: not you"):
        refuse_if_all_did([refused, gone])
    refuse_if_all_did([refused, answer()])
    refuse_if_all_did([refused, answer("silent", "does not answer")])
