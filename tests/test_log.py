"""The log: names that stay the same, figures beside the text, nothing too long to read."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest

from graceful_asgi import DrainPolicy, DrainReport, Phase, StuckWork, log
from graceful_asgi.phase import PhaseChange
from graceful_asgi.report import DrainStatistics

LOGGER = "graceful_asgi"


def stuck(number: int = 0, *, where: str = "app.py:1 in f") -> StuckWork:
    return StuckWork(
        kind="http",
        method="GET",
        path=f"/{number}",
        age=float(number),
        phase="response not started",
        where=where,
    )


def report(**changes: Any) -> DrainReport:
    given = {"completed": 3, "cancelled": 0, "aborted": 0, "rejected": 1, "elapsed": 2.5}
    return DrainReport(reason="SIGTERM", **{**given, **changes})


@pytest.fixture
def captured(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    return caplog


def only(captured: pytest.LogCaptureFixture) -> Any:
    (record,) = captured.records
    assert record.name == LOGGER
    assert record.getMessage().startswith(f"drain [{os.getpid()}]: "), "workers log the same lines"
    return record


def test_a_change_of_phase_has_its_figures(captured: pytest.LogCaptureFixture) -> None:
    log.phase_changed(
        PhaseChange(previous=Phase.LAME_DUCK, phase=Phase.DRAINING, reason="SIGTERM", in_flight=7)
    )
    record = only(captured)
    assert (record.levelname, record.event) == ("INFO", "drain.phase")
    assert (record.phase, record.previous_phase) == ("draining", "lame duck")
    assert (record.reason, record.in_flight) == ("SIGTERM", 7)
    assert "7 in flight" in record.getMessage()


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_can_be_said(captured: pytest.LogCaptureFixture, phase: Phase) -> None:
    log.phase_changed(PhaseChange(previous=Phase.SERVING, phase=phase, reason="test", in_flight=0))
    assert only(captured).phase == phase.value


def test_a_clean_drain_is_information(captured: pytest.LogCaptureFixture) -> None:
    log.finished(report())
    record = only(captured)
    assert (record.levelname, record.event, record.clean) == ("INFO", "drain.report", True)
    assert (record.completed, record.rejected, record.elapsed) == (3, 1, 2.5)
    assert "clean" in record.getMessage()


@pytest.mark.parametrize("what", ["cancelled", "aborted"])
def test_a_drain_that_was_forced_is_a_warning(
    captured: pytest.LogCaptureFixture, what: str
) -> None:
    log.finished(report(**{what: 2}))
    record = only(captured)
    assert (record.levelname, record.clean) == ("WARNING", False)
    assert getattr(record, what) == 2
    assert f"2 {what}" in record.getMessage()


def test_stuck_work_is_named_with_the_line_it_waits_at(captured: pytest.LogCaptureFixture) -> None:
    log.stuck(stuck(3))
    record = only(captured)
    assert (record.levelname, record.event) == ("WARNING", "drain.stuck")
    assert (record.kind, record.method, record.path, record.age) == ("http", "GET", "/3", 3.0)
    assert (record.progress, record.where) == ("response not started", "app.py:1 in f")
    assert "http GET /3 for 3.0 s, response not started, at app.py:1 in f" in record.getMessage()


def test_of_very_much_stuck_work_the_oldest_is_named_and_the_rest_counted(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.all_stuck([stuck(number) for number in range(1000)])
    *lines, last = [vars(record) for record in captured.records]
    assert [line["age"] for line in lines] == [float(999 - n) for n in range(len(lines))]
    assert len(lines) < 50
    assert last["event"] == "drain.stuck_more"
    assert last["more"] == 1000 - len(lines)


def test_of_a_little_stuck_work_every_one_is_named(captured: pytest.LogCaptureFixture) -> None:
    log.all_stuck([stuck(number) for number in range(20)])
    assert [vars(record)["event"] for record in captured.records] == ["drain.stuck"] * 20


def test_a_drain_that_an_exception_began_is_a_warning_however_clean(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.finished(report(failed=True))
    record = only(captured)
    assert (record.levelname, record.clean, record.exit_code) == ("WARNING", True, 1)


def statistics(oldest: StuckWork | None) -> DrainStatistics:
    return DrainStatistics(
        phase=Phase.DRAINING,
        reason="SIGTERM",
        in_flight=4,
        oldest=oldest,
        completed=1,
        cancelled=0,
        aborted=0,
        rejected=0,
        elapsed=6.0,
        time_left=9.0,
    )


def test_progress_names_the_oldest_work(captured: pytest.LogCaptureFixture) -> None:
    log.progress(statistics(stuck(6)))
    record = only(captured)
    assert (record.event, record.in_flight, record.time_left) == ("drain.progress", 4, 9.0)
    assert record.oldest_age == 6.0
    assert "oldest: http GET /6" in record.getMessage()


def test_progress_can_be_said_with_nothing_in_flight(captured: pytest.LogCaptureFixture) -> None:
    log.progress(statistics(None))
    assert only(captured).oldest_age == 0.0


def test_the_rest_of_the_events_keep_their_names(captured: pytest.LogCaptureFixture) -> None:
    log.stop_follows("SIGTERM", "drain endpoint")
    log.hooked("uvicorn.server.Server", DrainPolicy())
    log.passive("no uvicorn server found here")
    log.ignored("SIGTERM", Phase.DRAINING)
    log.caution("the %s is not as it should be", "pipe")
    log.detail("a connection has gone: %r", OSError())
    try:
        raise ValueError("broken")
    except ValueError:
        log.failed("hook %r failed", "f")
    said = {
        vars(record)["event"].removeprefix("drain."): record.levelname
        for record in captured.records
    }
    assert said == {
        "stop": "INFO",
        "hooked": "INFO",
        "passive": "WARNING",
        "ignored": "INFO",
        "caution": "WARNING",
        "detail": "DEBUG",
        "failed": "ERROR",
    }


def test_a_filter_that_raises_ends_no_drain(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the program's own; `logging` lets a filter's error out, and a drain says a lot."""

    def broken(record: logging.LogRecord) -> bool:
        raise LookupError("a broken filter")

    log.logger.addFilter(broken)
    try:
        log.caution("something")
        log.failed("something else")
    finally:
        log.logger.removeFilter(broken)
    assert capsys.readouterr().err.count("LookupError: a broken filter") == 2
