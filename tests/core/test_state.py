"""The triggers, and what they make of a drain's state: each is one step, and idempotent.

No event loop runs here, and the clock stands still until a test moves it.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.virtual_time import ManualClock

from graceful_asgi import DrainPolicy, Phase
from graceful_asgi._core.runner import DrainRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

POLICY = DrainPolicy(lame_duck_period=5, grace_period=15)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def drainer(clock: ManualClock) -> DrainRunner:
    return DrainRunner(POLICY, clock=clock)


def test_a_drainer_serves_until_it_is_told_otherwise(drainer: DrainRunner) -> None:
    statistics = drainer.statistics()
    assert statistics.phase is Phase.SERVING
    assert (statistics.reason, statistics.in_flight, statistics.oldest) == ("", 0, None)
    assert (statistics.elapsed, statistics.time_left) == (0.0, math.inf)
    assert drainer.policy is POLICY


def test_without_a_policy_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRACEFUL_GRACE_PERIOD", "3")
    assert DrainRunner().policy == DrainPolicy(grace_period=3)


# begin


def test_begin_begins_a_drain_and_says_that_it_did(drainer: DrainRunner) -> None:
    assert drainer.begin("drain endpoint") is True
    assert drainer.phase is Phase.LAME_DUCK
    assert drainer.statistics().reason == "drain endpoint"
    assert drainer.state.stopping is False


def test_the_first_trigger_counts(drainer: DrainRunner, clock: ManualClock) -> None:
    drainer.begin("first")
    clock.move(2)
    assert drainer.begin("second") is False
    assert drainer.statistics().reason == "first"
    assert drainer.statistics().elapsed == 2.0


def test_a_begin_gives_no_deadline_to_the_work_in_flight(drainer: DrainRunner) -> None:
    drainer.begin("test")
    assert drainer.time_left() == math.inf


# stop


def test_stop_begins_a_drain_that_ends_the_process(drainer: DrainRunner) -> None:
    assert drainer.stop("SIGTERM") is True
    assert drainer.phase is Phase.LAME_DUCK
    assert drainer.state.stopping is True
    assert drainer.time_left() == 20.0


def test_a_second_stop_changes_nothing(drainer: DrainRunner, clock: ManualClock) -> None:
    drainer.stop("SIGTERM")
    clock.move(3)
    assert drainer.stop("SIGTERM again", lame_duck=False) is False
    assert drainer.time_left() == 17.0
    assert drainer.statistics().reason == "SIGTERM"


def test_a_stop_after_a_begin_counts_the_lame_duck_from_the_begin(
    drainer: DrainRunner, clock: ManualClock
) -> None:
    drainer.begin("drain endpoint")
    clock.move(3)
    assert drainer.stop("SIGTERM") is True
    assert drainer.time_left() == 2.0 + 15.0
    assert drainer.statistics().reason == "drain endpoint"
    assert drainer.statistics().elapsed == 3.0


def test_a_stop_long_after_a_begin_still_gives_the_whole_grace_period(
    drainer: DrainRunner, clock: ManualClock
) -> None:
    """The lame duck is over; the grace period begins with the listener close, that is now.

    A server that arms its hard deadline with less kills what it has promised to wait for.
    """
    drainer.begin("drain endpoint")
    clock.move(60)
    drainer.stop("SIGTERM")
    assert drainer.time_left() == 15.0


def test_a_stop_after_a_quiet_begin_still_gives_the_whole_grace_period(clock: ManualClock) -> None:
    drainer = DrainRunner(DrainPolicy(lame_duck_period=60, quiet_period=1), clock=clock)
    drainer.begin("drain endpoint")
    clock.move(30)
    drainer.stop("SIGTERM")
    assert drainer.time_left() >= 15.0


@pytest.mark.parametrize("begun", [False, True])
def test_a_stop_without_a_lame_duck_skips_what_is_left_of_it(
    drainer: DrainRunner, clock: ManualClock, begun: bool
) -> None:
    if begun:
        drainer.begin("drain endpoint")
        clock.move(1)
    drainer.stop("SIGINT", lame_duck=False)
    assert drainer.time_left() == 15.0


def test_a_stop_after_an_abort_has_a_deadline(drainer: DrainRunner) -> None:
    """The hard deadline is armed with the time left, and no thread can wait for ever."""
    drainer.begin("drain endpoint")
    drainer.abort()
    drainer.stop("SIGTERM")
    assert 0 <= drainer.time_left() <= POLICY.cancel_period


# resume


def test_resume_calls_a_drain_off_and_forgets_it(drainer: DrainRunner, clock: ManualClock) -> None:
    drainer.begin("drain endpoint")
    with drainer.track("export"):
        pass
    clock.move(2)
    assert drainer.resume() is True
    statistics = drainer.statistics()
    assert statistics.phase is Phase.SERVING
    assert (statistics.reason, statistics.completed, statistics.elapsed) == ("", 0, 0.0)


def test_a_resumed_drainer_can_drain_again(drainer: DrainRunner, clock: ManualClock) -> None:
    drainer.begin("first")
    drainer.resume()
    clock.move(100)
    assert drainer.begin("second") is True
    assert drainer.statistics().reason == "second"
    assert drainer.statistics().elapsed == 0.0


def test_resume_is_refused_once_a_stop_has_come(drainer: DrainRunner) -> None:
    drainer.begin("drain endpoint")
    drainer.stop("SIGTERM")
    assert drainer.resume() is False
    assert drainer.phase is Phase.LAME_DUCK
    assert drainer.state.stopping is True


def test_resume_is_refused_once_work_is_cancelled(drainer: DrainRunner) -> None:
    drainer.begin("drain endpoint")
    drainer.abort()
    assert drainer.resume() is False
    assert drainer.phase is Phase.CANCELLING


def test_resume_while_serving_changes_nothing(drainer: DrainRunner) -> None:
    assert drainer.resume() is False
    assert drainer.phase is Phase.SERVING


# abort


@pytest.mark.parametrize("trigger", ["begin", "stop"])
def test_abort_waits_no_longer(drainer: DrainRunner, trigger: str) -> None:
    getattr(drainer, trigger)("test")
    assert drainer.abort() is True
    assert drainer.phase is Phase.CANCELLING


def test_abort_is_idempotent_and_needs_a_drain(drainer: DrainRunner) -> None:
    assert drainer.abort() is False
    assert drainer.statistics().phase is Phase.SERVING
    drainer.begin("test")
    drainer.abort()
    assert drainer.abort() is False
    assert drainer.statistics().phase is Phase.CANCELLING


# Looking at it


def test_work_that_ended_while_serving_is_no_part_of_the_report(drainer: DrainRunner) -> None:
    with drainer.track("before"):
        pass
    with drainer.track("across"):
        drainer.begin("test")
    with drainer.track("during"):
        pass
    assert drainer.report().completed == 2
    assert drainer.report().clean


def test_age_counts_from_the_first_trigger(drainer: DrainRunner, clock: ManualClock) -> None:
    assert drainer.statistics().elapsed == 0.0
    drainer.begin("test")
    clock.move(4)
    drainer.stop("SIGTERM")
    clock.move(3)
    assert drainer.statistics().elapsed == 7.0


@pytest.mark.parametrize(
    ("triggers", "waiting"),
    [([], False), (["begin"], True), (["begin", "abort"], False), (["begin", "resume"], False)],
)
def test_waiting_says_whether_work_may_still_finish(
    drainer: DrainRunner, triggers: list[str], waiting: bool
) -> None:
    for trigger in triggers:
        arguments = ["test"] if trigger == "begin" else []
        getattr(drainer, trigger)(*arguments)
    assert drainer.state.waiting is waiting


def test_of_many_threads_that_trigger_at_once_one_begins_the_drain() -> None:
    drainer = DrainRunner(POLICY)
    barrier = threading.Barrier(8)
    began: list[str] = []

    def trigger(name: str) -> None:
        barrier.wait()
        if drainer.begin(name):
            began.append(name)

    threads = [threading.Thread(target=trigger, args=(f"thread {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert began == [drainer.statistics().reason]


# Signals, at every line of a trigger that is under way in the thread they interrupt


def interrupted(call: Callable[[], object], at: int, handler: Callable[[], object]) -> bool:
    """Make *call*, with *handler* run before its line *at*; return False if it has fewer lines."""
    lines = itertools.count()
    handled = False

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal handled
        if "graceful_asgi" not in frame.f_code.co_filename:
            return None
        if event == "line" and next(lines) == at:
            sys.settrace(None)
            handler()
            handled = True
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return handled


@pytest.mark.parametrize("lame_duck", [True, False])
@pytest.mark.parametrize("outer", ["begin", "stop", "resume", "abort"])
def test_a_stop_is_heard_at_whichever_line_it_interrupts_another_trigger(
    outer: str, lame_duck: bool
) -> None:
    """And it has a deadline there and then: what arms the hard deadline is the signal handler."""
    first = 20.0 if lame_duck else 15.0
    for at in range(1000):
        drainer = DrainRunner(POLICY, clock=ManualClock())
        if outer in ("resume", "abort"):
            drainer.begin("drain endpoint")
        arguments = ["another trigger"] if outer in ("begin", "stop") else []
        told: list[float] = []
        stops: list[bool] = []

        def stop(drainer: DrainRunner = drainer, told: Any = told, stops: Any = stops) -> None:
            stops.append(drainer.stop("signal", lame_duck=lame_duck))
            told.append(drainer.time_left())

        def call(
            drainer: DrainRunner = drainer, arguments: Any = arguments, stops: Any = stops
        ) -> None:
            result = getattr(drainer, outer)(*arguments)
            if outer == "stop":
                stops.append(result)

        if not interrupted(call, at, stop):
            assert at > 5, "there are more lines than that"
            break
        assert drainer.state.stopping, f"at line {at}"
        assert stops.count(True) == 1, f"at line {at}"
        assert all(0 <= left <= 20.0 for left in told), f"at line {at}: {told}"
        assert drainer.statistics().reason, f"at line {at}"
        if outer == "abort":
            assert drainer.phase in (Phase.CANCELLING, Phase.LAME_DUCK)
        else:
            assert drainer.phase is Phase.LAME_DUCK, f"at line {at}"
        if outer == "begin":
            assert drainer.time_left() == first, f"at line {at}"
    else:
        raise AssertionError("no end to it")


@pytest.mark.parametrize("lame_duck", [True, False])
def test_of_two_begins_the_one_that_counts_says_so_at_whichever_line_they_meet(
    lame_duck: bool,
) -> None:
    for at in range(1000):
        drainer = DrainRunner(POLICY, clock=ManualClock())
        began: list[str] = []

        def begin(name: str, drainer: DrainRunner = drainer, began: Any = began) -> None:
            if drainer.begin(name, lame_duck=lame_duck):
                began.append(name)

        if not interrupted(lambda: begin("outer"), at, lambda: begin("inner")):
            break
        assert began == [drainer.statistics().reason], f"at line {at}"
        assert drainer.phase is Phase.LAME_DUCK
