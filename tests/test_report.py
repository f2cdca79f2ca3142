"""The records: what they say of themselves."""

from __future__ import annotations

import functools

import pytest

from graceful_asgi import DrainReport, StuckWork


def test_stuck_work_reads_as_a_sentence() -> None:
    work = StuckWork("http", "GET", "/export", 20.04, "response not started", "app.py:7 in export")
    assert str(work) == ("http GET /export for 20.0 s, response not started, at app.py:7 in export")
    task = StuckWork("task", "", "nightly export", 1.0, "running", "")
    assert str(task) == "task nightly export for 1.0 s, running"


@pytest.mark.parametrize(
    ("cancelled", "aborted", "clean"), [(0, 0, True), (1, 0, False), (0, 1, False)]
)
def test_a_report_is_clean_when_everything_in_flight_finished(
    cancelled: int, aborted: int, clean: bool
) -> None:
    make = functools.partial(
        DrainReport, reason="SIGTERM", completed=5, closed=7, rejected=9, elapsed=1.0
    )
    assert make(cancelled=cancelled, aborted=aborted).clean is clean


def test_a_path_cannot_add_a_line_to_the_log() -> None:
    work = StuckWork("http", "GET", "/a\nERROR: \x1b[31mforged\u2028ü", 1.0, "response started", "")
    assert str(work) == (r"http GET /a\nERROR: \x1b[31mforged\u2028ü for 1.0 s, response started")
