"""The closing words follow from the figures, and can be read where there is no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from check.result.test_verdict import CUT, trial
from graceful_asgi._check.console import ConsoleProgress, print_table
from graceful_asgi._check.load import LoadStatistics
from graceful_asgi._check.result.counts import Counts
from graceful_asgi._check.result.finding import Finding
from graceful_asgi._check.result.text import (
    Row,
    exit_code,
    headline,
    not_run,
    sections,
    signal_name,
)
from graceful_asgi._check.result.verdict import judge
from graceful_asgi._check.server.command import Command

UPLOAD = Finding("upload", "not run", "needs --upload-path")
GOOD = judge([trial()])
BAD = judge(
    [
        trial(
            CUT,
            UPLOAD,
            before=Counts(served=998, lost={"cut body": 2}, lost_on_reuse=2),
            after=Counts(served=3, wrong={"status 500": 1}, lost={"empty reply": 2}, unsent=4),
            exit_code=-15,
            late=True,
            left_running=1,
        )
    ]
)


def rows(*verdicts: object) -> dict[str, Row]:
    return {row.label: row for section in sections([BAD, GOOD]) for row in section}


def texts(label: str) -> tuple[str, ...]:
    return tuple(cell.text for cell in rows()[label].cells)


def test_the_headline_says_what_went_wrong_or_what_was_seen() -> None:
    assert headline("main:app", GOOD, deadline=30).text == (
        "PASSED  main:app: nothing lost and nothing wrong of 17 requests, gone 1.0 s after the "
        "signal (deadline 30 s)"
    )
    bad = headline("main:app", BAD, deadline=30)
    assert bad.tone == "bad"
    assert bad.text == (
        "FAILED  main:app: 4 requests lost (2 empty reply, 2 cut body); 1 wrong answer (status "
        "500); 4 connections dead before a request was written; slow request: lost: cut body; not "
        "gone by the deadline in 1 of 1 run; 1 process left running by the command"
    )


def test_each_figure_has_a_row_and_each_server_a_cell() -> None:
    assert texts("LOST") == ("4", "0")
    assert texts("WRONG") == ("1", "0")
    assert texts("answered right") == ("1,003", "17")
    lost, served = ([row.cells for row in section[1:4]] for section in sections([BAD, GOOD])[:2])
    assert [cells[0].text for cells in lost] == ["2", "0", "2"]
    assert [cells[0].text for cells in served] == ["998", "2", "3"]
    assert texts("  empty reply") == ("2", "0")
    assert texts("  status 500") == ("1", "0")
    assert texts("slow request") == ("FAILED: lost: cut body", "ok: 200 complete")
    assert texts("gone after") == ("not by the deadline", "1.00 s")
    assert texts("exit code") == ("-15 (SIGTERM)", "0")


def test_kinds_of_loss_that_did_not_occur_are_left_out() -> None:
    assert "  timeout" not in rows()
    assert "safe to send again" not in rows()


def test_what_was_not_run_is_listed_with_its_reason_and_stands_in_no_row() -> None:
    assert "upload" not in rows()
    assert not_run([BAD, GOOD]) == "upload (needs --upload-path)"


def test_the_table_is_legible_in_eighty_columns_without_a_terminal() -> None:
    output = io.StringIO()
    print_table(Console(file=output, width=80), ["main:app", "other:app"], sections([BAD, GOOD]))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in output.getvalue()
    [line] = [line for line in lines if "LOST" in line]
    assert [cell.strip() for cell in line.split("│")[1:4]] == ["LOST", "4", "0"]


def test_progress_is_a_line_for_each_step_where_there_is_no_terminal() -> None:
    output = io.StringIO()
    progress = ConsoleProgress(Console(file=output, width=100), rounds=3)
    statistics = LoadStatistics(sent=1234, lost=5, wrong=2, refused=6, in_flight=7)
    with progress.run(2, Command(("server",), "main:app"), "load") as watch:
        watch("under load", statistics)
        watch("under load", statistics)
        watch("exited", statistics)
    first, second = output.getvalue().splitlines()
    assert first.startswith("2/3 main:app")
    assert "under load" in first
    assert "5 lost" in second
    assert "2 wrong" in second
    assert "6 refused" in second


def test_an_exit_code_names_its_signal() -> None:
    assert exit_code(3) == "3"
    assert exit_code(-9) == "-9 (SIGKILL)"
    assert signal_name(36) == "signal 36"


def test_on_a_terminal_the_line_is_rewritten_in_place_and_a_loss_stands_out() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system="standard")
    statistics = LoadStatistics(sent=1234, lost=5, wrong=2, refused=6, in_flight=7)
    with ConsoleProgress(console, rounds=1).run(1, Command(("x",), "main:app"), "load") as watch:
        for _ in range(3):
            watch("told to stop", statistics)
    assert output.getvalue().count("main:app") > 1
    assert "\x1b[1;31m    5 lost" in output.getvalue()
