"""The closing words follow from the figures, and can be read where there is no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from graceful_asgi.check.counts import Counts
from graceful_asgi.check.display import TrialProgress, print_table
from graceful_asgi.check.load import LoadStatistics
from graceful_asgi.check.summary import rows, sentence
from graceful_asgi.check.verdict import judge

from .test_verdict import trial

GOOD = judge([trial()])
BAD = judge(
    [
        trial(
            before=Counts(sent=1000, served=998, lost={"cut body": 2}, lost_on_reuse=2),
            after=Counts(
                sent=6,
                served=3,
                errors={500: 1},
                lost={"empty reply": 2},
                lost_on_reuse=0,
                unsent=4,
            ),
            exit_code=-15,
        )
    ]
)


def test_the_sentence_gives_each_server_its_own_figures() -> None:
    assert sentence(BAD, GOOD) == (
        "Told to stop under load, plain uvicorn lost 4 of 1,006 requests (2 on reused connections, "
        "2 on fresh ones), served 3 sent after the signal, left 4 connections dead before their "
        "request was written, answered 1 with an error and exited with code -15 (SIGTERM) after "
        "1.0 s; with graceful_asgi it lost none of 15 requests, served 5 sent after the signal and "
        "exited with code 0 after 1.0 s."
    )


def test_the_sentence_does_not_flatter_a_graceful_server_that_lost() -> None:
    text = sentence(GOOD, judge([trial(after=Counts(sent=1, lost={"timeout": 1}), killed=True)]))
    assert "plain uvicorn lost none of 15 requests" in text
    assert "with graceful_asgi it lost 1 of 11 requests" in text
    assert "was killed after" in text


def test_the_rows_show_every_kind_that_occurred_in_any_column() -> None:
    table = dict(rows([BAD, GOOD]))
    assert table["lost"] == ("4", "0")
    assert table["  on a reused connection"] == ("2", "0")
    assert table["  by kind: cut body"] == ("2", "0")
    assert table["  by kind: empty reply"] == ("2", "0")
    assert "  by kind: timeout" not in table
    assert table["dead at the write (never sent)"] == ("4", "0")
    assert table["answered with an error"] == ("1 x 500", "0")
    assert table["exit code"] == ("-15 (SIGTERM)", "0")


def test_without_a_terminal_there_is_one_line_per_stage_and_no_control_character() -> None:
    output = io.StringIO()
    console = Console(file=output, highlight=False, width=100)
    figures = LoadStatistics(sent=10, lost=2, refused=3, in_flight=4)
    with TrialProgress(console, title="some server") as progress:
        for stage in ("starting", "under load", "under load", "told to stop", "exited"):
            progress.watch(stage, figures)
    print_table(console, ["one", "two"], rows([BAD, GOOD]))
    text = output.getvalue()
    assert text.count("some server") == 4
    assert not any(ord(character) < 32 for character in text.replace("\n", ""))
    assert "lost" in text


def test_on_a_terminal_the_line_is_rewritten_in_place() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with TrialProgress(console, title="some server") as progress:
        for sent in (1, 2):
            statistics = LoadStatistics(sent=sent, lost=0, refused=0, in_flight=1)
            progress.watch("under load", statistics)
    assert "\x1b[2K" in output.getvalue()
