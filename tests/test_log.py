"""The log: stable event names, figures beside the text, nothing that a terminal would act on."""

from __future__ import annotations

import json
import logging
import math
import os
from typing import Any

import pytest
from support.records import event, extras

from graceful_asgi import DrainPolicy, DrainReport, Phase, StuckWork, log
from graceful_asgi._core.stuck_report import BlockedLoop, StuckReport
from graceful_asgi._diagnostics.stacks import ThreadStack
from graceful_asgi.phase import PhaseChange
from graceful_asgi.report import DrainStatistics, Moment

LOGGER = "graceful_asgi"


def stuck(number: int = 0, *, where: str = "app.py:1 in f", path: str = "") -> StuckWork:
    return StuckWork(
        kind="http",
        method="GET",
        path=path or f"/{number}",
        age=float(number),
        phase="response not started",
        where=where,
    )


def report(**changes: Any) -> DrainReport:
    given = {
        "completed": 3,
        "closed": 2,
        "cancelled": 0,
        "aborted": 0,
        "rejected": 1,
        "elapsed": 2.5,
    }
    return DrainReport(reason="SIGTERM", **{**given, **changes})


def change(phase: Phase, **more: Any) -> PhaseChange:
    given = {"previous": Phase.SERVING, "reason": "SIGTERM", "in_flight": 0}
    return PhaseChange(phase=phase, **{**given, **more})


def stuck_report(moment: Moment = "hard deadline", **changes: Any) -> StuckReport:
    given: dict[str, Any] = {
        "reason": "SIGTERM",
        "stopped_by": "SIGTERM",
        "cut_short": False,
        "elapsed": 9.0,
        "time_left": 0.0,
        "in_flight": 1,
        "works": (stuck(7),),
        "blocked": None,
        "threads": (),
    }
    return StuckReport(moment=moment, **{**given, **changes})


@pytest.fixture
def captured(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    return caplog


def only(captured: pytest.LogCaptureFixture) -> logging.LogRecord:
    (record,) = captured.records
    assert record.name == LOGGER
    assert record.getMessage().startswith(f"drain [{os.getpid()}]: "), "workers log the same lines"
    return record


# A line for each change of phase


def test_a_change_of_phase_has_its_figures(captured: pytest.LogCaptureFixture) -> None:
    log.phase_changed(
        change(Phase.DRAINING, previous=Phase.LAME_DUCK, in_flight=7, stopped_by="SIGTERM")
    )
    record = only(captured)
    assert record.levelname == "INFO"
    assert extras(record) == {
        "event": "drain.phase",
        "phase": "draining",
        "previous_phase": "lame duck",
        "reason": "SIGTERM",
        "stopped_by": "SIGTERM",
        "in_flight": 7,
        "time_left": None,
    }
    assert "draining (SIGTERM): " in record.getMessage()
    assert "7 in flight" in record.getMessage()


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("left", [0.0, 12.5, math.inf])
def test_every_phase_has_a_line_that_json_can_hold(
    captured: pytest.LogCaptureFixture, phase: Phase, left: float
) -> None:
    log.phase_changed(change(phase, time_left=left))
    figures = extras(only(captured))
    assert figures["phase"] == phase.value
    assert json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    "phase", [Phase.LAME_DUCK, Phase.DRAINING, Phase.CANCELLING, Phase.CLEANUP]
)
def test_the_line_tells_how_long_the_phase_may_last(
    captured: pytest.LogCaptureFixture, phase: Phase
) -> None:
    log.phase_changed(change(phase, time_left=12.5))
    record = only(captured)
    assert "for up to 12.5 s" in record.getMessage()
    assert extras(record)["time_left"] == 12.5


def test_a_lame_duck_that_nothing_ends_but_a_stop_is_told_apart(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.phase_changed(change(Phase.LAME_DUCK, reason="graceful-asgi drain"))
    assert "accepting until a stop or a resume" in only(captured).getMessage()


def test_the_line_of_a_resume_names_the_drain_that_is_over_not_a_cause(
    captured: pytest.LogCaptureFixture,
) -> None:
    resumed = change(Phase.SERVING, previous=Phase.LAME_DUCK, reason="the endpoint", time_left=9.0)
    log.phase_changed(resumed)
    assert "serving (after the endpoint): serving as before" in only(captured).getMessage()


def test_a_lame_duck_that_ctrl_c_skips_is_not_said_to_accept(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.phase_changed(change(Phase.LAME_DUCK, reason="SIGINT", time_left=0.0))
    text = only(captured).getMessage()
    assert "lame duck (SIGINT): skipped" in text
    assert "accepting" not in text


def test_a_server_that_stops_with_work_in_flight_does_not_say_done(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.phase_changed(change(Phase.STOPPED, in_flight=2, time_left=0.0))
    assert only(captured).getMessage().endswith("stopped (SIGTERM): 2 still in flight, given up")
    captured.clear()
    log.phase_changed(change(Phase.STOPPED, time_left=0.0))
    assert only(captured).getMessage().endswith("stopped (SIGTERM): nothing is left in flight")


def test_a_stop_that_follows_a_drain_names_both_causes(
    captured: pytest.LogCaptureFixture,
) -> None:
    begun = "graceful-asgi drain"
    log.stop_follows("SIGTERM", begun)
    log.phase_changed(change(Phase.DRAINING, reason=begun, stopped_by="SIGTERM"))
    log.finished(
        DrainReport(
            reason=begun,
            stopped_by="SIGTERM",
            completed=1,
            closed=0,
            cancelled=0,
            aborted=0,
            rejected=0,
            elapsed=9.0,
        )
    )
    stop, phase, last = captured.messages
    assert stop.endswith("SIGTERM ends the process after the drain begun by graceful-asgi drain")
    assert "draining (SIGTERM after graceful-asgi drain): " in phase
    assert "clean after 9.0 s (SIGTERM after graceful-asgi drain): " in last


# The result


def test_a_clean_drain_is_information(captured: pytest.LogCaptureFixture) -> None:
    log.finished(report())
    record = only(captured)
    figures = extras(record)
    assert (record.levelname, figures["event"], figures["clean"]) == ("INFO", "drain.report", True)
    assert (figures["completed"], figures["rejected"], figures["elapsed"]) == (3, 1, 2.5)
    assert "clean" in record.getMessage()


def test_server_errors_of_the_app_are_named_if_there_are_any(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.finished(report())
    log.finished(report(server_errors=2))
    without, with_some = captured.messages
    assert without.endswith("1 rejected")
    assert with_some.endswith("1 rejected; 2 of the completed with a server error")
    assert [extras(record)["server_errors"] for record in captured.records] == [0, 2]


@pytest.mark.parametrize("what", ["cancelled", "aborted"])
def test_a_drain_that_was_forced_is_a_warning(
    captured: pytest.LogCaptureFixture, what: str
) -> None:
    log.finished(report(**{what: 2}))
    record = only(captured)
    assert (record.levelname, extras(record)["clean"]) == ("WARNING", False)
    assert extras(record)[what] == 2
    assert f"2 {what}" in record.getMessage()


def test_a_drain_that_an_exception_began_is_a_warning_however_clean(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.finished(report(failed=True))
    record = only(captured)
    assert record.levelname == "WARNING"
    assert (extras(record)["clean"], extras(record)["exit_code"]) == (True, 1)


# How it goes on


def statistics(oldest: StuckWork | None, **changes: Any) -> DrainStatistics:
    given: dict[str, Any] = {
        "phase": Phase.DRAINING,
        "reason": "SIGTERM",
        "in_flight": 4,
        "oldest": oldest,
        "completed": 1,
        "closed": 0,
        "cancelled": 0,
        "aborted": 0,
        "rejected": 0,
        "elapsed": 6.0,
        "time_left": 9.0,
    }
    return DrainStatistics(**{**given, **changes})


def test_progress_names_the_oldest_work(captured: pytest.LogCaptureFixture) -> None:
    log.progress(statistics(stuck(6)))
    figures = extras(only(captured))
    assert figures["event"] == "drain.progress"
    assert (figures["in_flight"], figures["time_left"], figures["oldest_age"]) == (4, 9.0, 6.0)
    assert "4 in flight, 9.0 s left, oldest: http GET /6" in only(captured).getMessage()


def test_progress_can_be_logged_with_nothing_in_flight(captured: pytest.LogCaptureFixture) -> None:
    log.progress(statistics(None))
    assert extras(only(captured))["oldest_age"] == 0.0


def test_progress_of_a_drain_without_a_stop_has_no_end(captured: pytest.LogCaptureFixture) -> None:
    log.progress(statistics(None, phase=Phase.LAME_DUCK, time_left=math.inf))
    record = only(captured)
    assert "waiting for a stop" in record.getMessage()
    assert extras(record)["time_left"] is None


def test_a_drain_without_a_stop_has_a_line_for_its_outcome(
    captured: pytest.LogCaptureFixture,
) -> None:
    now = statistics(None, phase=Phase.LAME_DUCK, reason="graceful-asgi drain", in_flight=0)
    log.held("clean", now)
    record = only(captured)
    assert (record.levelname, extras(record)["outcome"]) == ("INFO", "clean")
    assert record.getMessage().endswith(
        "drained after 6.0 s (graceful-asgi drain): waiting for a stop or a resume"
    )


def test_a_drain_without_a_stop_that_is_not_over_in_time_is_a_warning(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.held("forced", statistics(stuck(6), phase=Phase.LAME_DUCK))
    record = only(captured)
    assert record.levelname == "WARNING"
    assert "not drained, 4 still in flight after 6.0 s" in record.getMessage()


# Stuck work


def test_stuck_work_is_named_with_the_line_it_waits_at(captured: pytest.LogCaptureFixture) -> None:
    log.stuck(stuck(3))
    record = only(captured)
    figures = extras(record)
    assert (record.levelname, figures["event"]) == ("WARNING", "drain.stuck")
    assert (figures["kind"], figures["method"], figures["path"]) == ("http", "GET", "/3")
    assert (figures["progress"], figures["where"]) == ("response not started", "app.py:1 in f")
    assert figures["age"] == 3.0
    assert "http GET /3 for 3.0 s, response not started, at app.py:1 in f" in record.getMessage()


def test_of_very_much_stuck_work_the_oldest_is_named_and_the_rest_counted(
    captured: pytest.LogCaptureFixture,
) -> None:
    log.all_stuck([stuck(number) for number in range(1000)])
    *lines, last = map(extras, captured.records)
    assert [line["age"] for line in lines] == [float(999 - n) for n in range(len(lines))]
    assert len(lines) < 50
    assert last["event"] == "drain.stuck_more"
    assert last["more"] == 1000 - len(lines)


def test_of_a_little_stuck_work_every_one_is_named(captured: pytest.LogCaptureFixture) -> None:
    log.all_stuck([stuck(number) for number in range(20)])
    assert list(map(event, captured.records)) == ["drain.stuck"] * 20


def test_a_stuck_report_is_one_record_for_a_terminal_and_for_json(
    captured: pytest.LogCaptureFixture,
) -> None:
    stuck_report(
        blocked=BlockedLoop(3.0, True, "app.py:4 in f"),
        threads=(ThreadStack("worker", ("app.py:5 in g: sleep(1)",)),),
    ).write()
    record = only(captured)
    assert record.levelname == "ERROR"
    text = record.getMessage()
    assert "hard deadline: 9.0 s after SIGTERM the process ends now, 1 still in flight" in text
    assert "\n  event loop blocked for at least 3.0 s at app.py:4 in f\n" in text
    assert "\n  stuck: http GET /7 for 7.0 s" in text
    assert text.endswith("\n  worker\n    app.py:5 in g: sleep(1)")
    figures = json.loads(json.dumps(extras(record)))
    assert figures["event"] == "drain.hard_deadline"
    assert figures["threads"] == [{"name": "worker", "lines": ["app.py:5 in g: sleep(1)"]}]


def test_one_more_ctrl_c_is_not_called_the_hard_deadline(
    captured: pytest.LogCaptureFixture,
) -> None:
    stuck_report("interrupt").write()
    record = only(captured)
    assert "interrupted again: 9.0 s after SIGTERM the process ends now" in record.getMessage()
    assert extras(record)["event"] == "drain.interrupted"


# Everything else


def test_the_rest_of_the_events_keep_their_names(captured: pytest.LogCaptureFixture) -> None:
    log.stop_follows("SIGTERM", "drain endpoint")
    log.hooked("uvicorn.server.Server", DrainPolicy())
    log.passive("no uvicorn server found here")
    log.ignored("SIGTERM", Phase.DRAINING)
    log.closing({"http": 2, "websocket": 3}, 5.0)
    log.caution("the %s is not as it should be", "pipe")
    log.detail("a connection has gone: %r", OSError())
    try:
        raise ValueError("broken")
    except ValueError:
        log.failed("hook %r failed", "f")
    log.supervision("started", "supervises %d workers", 2)
    assert {event(record): record.levelname for record in captured.records} == {
        "drain.stop": "INFO",
        "drain.hooked": "INFO",
        "drain.passive": "INFO",
        "drain.ignored": "INFO",
        "drain.closing": "INFO",
        "drain.caution": "WARNING",
        "drain.detail": "DEBUG",
        "drain.failed": "ERROR",
        "supervisor.started": "INFO",
    }


def test_no_attribute_of_a_record_belongs_to_another_library(
    captured: pytest.LogCaptureFixture,
) -> None:
    """structlog takes `event` for the message, loguru and others have names of their own."""
    usual = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    log.finished(report())
    log.supervision("started", "supervises %d workers", 2)
    stuck_report().write()
    for record in captured.records:
        ours = set(vars(record)) - usual
        assert ours
        assert all(name.startswith("graceful.") for name in ours)


# What comes from outside

EVIL = "/a\x1b[2J\r\nINFO: forged\x9b\u202e"


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda: log.stuck(stuck(path=EVIL)), id="path"),
        pytest.param(lambda: log.all_stuck([stuck(path=EVIL)]), id="paths"),
        pytest.param(lambda: log.caution("closing failed: %s", OSError(EVIL)), id="error"),
        pytest.param(lambda: log.caution("closing failed: %r", Exception(EVIL)), id="its repr"),
        pytest.param(lambda: log.detail("%s has gone", EVIL), id="detail"),
        pytest.param(lambda: log.ignored(EVIL, Phase.DRAINING), id="reason"),
        pytest.param(lambda: log.phase_changed(change(Phase.DRAINING, reason=EVIL)), id="cause"),
        pytest.param(lambda: log.progress(statistics(stuck(path=EVIL))), id="oldest"),
        pytest.param(lambda: log.held("clean", statistics(None, reason=EVIL)), id="held"),
    ],
)
def test_no_text_from_outside_reaches_a_terminal_unescaped(
    captured: pytest.LogCaptureFixture, write: Any
) -> None:
    write()
    record = only(captured)
    text = record.getMessage()
    assert text.isprintable()
    assert "forged" in text, "escaped, not left out"
    strings = [value for value in extras(record).values() if isinstance(value, str)]
    assert all(map(str.isprintable, strings)), "some formatters print extras as they are"


def test_in_a_stuck_report_only_our_own_line_breaks_are_left(
    captured: pytest.LogCaptureFixture,
) -> None:
    stuck_report(
        reason=EVIL,
        works=(stuck(path=EVIL, where=EVIL),),
        blocked=BlockedLoop(1.0, False, EVIL),
        threads=(ThreadStack(EVIL, (EVIL,)),),
    ).write()
    lines = only(captured).getMessage().split("\n")
    assert len(lines) == 5
    assert all(map(str.isprintable, lines))


def test_the_text_of_an_exception_is_escaped_in_its_traceback(
    captured: pytest.LogCaptureFixture,
) -> None:
    try:
        try:
            raise LookupError(EVIL)
        except LookupError:
            raise ValueError(EVIL) from None
    except ValueError:
        log.failed("a hook failed")
    text = logging.Formatter().format(only(captured))
    assert all(map(str.isprintable, text.split("\n")))
    assert "ValueError: /a\\x1b[2J\\r\\nINFO: forged" in text
    assert "LookupError" not in text, "`from None` hides it"
    assert "test_log.py" in text


def test_a_traceback_shows_what_led_to_the_exception(captured: pytest.LogCaptureFixture) -> None:
    try:
        try:
            raise LookupError("first")
        except LookupError as error:
            raise ValueError("second") from error
    except ValueError:
        log.failed("a hook failed")
    text = logging.Formatter().format(only(captured))
    assert text.index("LookupError: first") < text.index("ValueError: second")
    assert text.count("Traceback") == 2


def test_an_object_whose_repr_raises_is_named_by_its_type(
    captured: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("broken")

    log.caution("%r and %s are not as they should be", Broken(), Broken())
    assert "<Broken> and <Broken> are not" in only(captured).getMessage()
