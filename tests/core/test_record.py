"""A process that drains and resumes for months: what it keeps of each drain, and what it costs."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from support.virtual_time import virtual_clock, virtual_time

from graceful_asgi import DrainPolicy
from graceful_asgi._core.record import DrainRecord
from graceful_asgi._core.runner import DrainRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time("asyncio")


def drain_and_resume(drainer: DrainRunner, times: int) -> None:
    """Drain *times*; one piece of work ends in each drain."""
    for _ in range(times):
        with drainer.track("job"):
            assert drainer.begin("test")
        assert drainer.resume()
        drainer.notifier.publish()


def calls_of_statistics(drainer: DrainRunner) -> int:
    """Return how many functions one look at the statistics calls."""
    calls = 0

    def count(frame: object, what: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    drainer.statistics()
    gc.disable()  # hypothesis has a callback there, which would be counted
    sys.setprofile(count)
    try:
        drainer.statistics()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


async def test_a_look_at_the_statistics_costs_the_same_after_many_drains() -> None:
    drainer = DrainRunner(DrainPolicy(), clock=virtual_clock())
    drain_and_resume(drainer, 3)
    few = calls_of_statistics(drainer)
    drain_and_resume(drainer, 100)
    assert calls_of_statistics(drainer) == few


async def test_the_totals_are_those_of_all_drains() -> None:
    drainer = DrainRunner(DrainPolicy(), clock=virtual_clock())
    for drains in (1, 2, 10):
        drain_and_resume(drainer, drains)
    statistics = drainer.statistics()
    assert statistics.drains == 13
    assert statistics.totals["completed"] == 13
    assert statistics.completed == 0  # it serves

    with drainer.track("job"):
        drainer.begin("test")
    drainer.notifier.publish()
    assert drainer.statistics().completed == 1
    assert drainer.statistics().totals["completed"] == 14


def interrupted(drainer: DrainRunner, at: int, look: Callable[[], object]) -> bool:
    """Publish, with *look* called before the line *at* of `DrainRecord.begin`, as a thread may do.

    Return False if it has fewer lines.
    """
    lines = itertools.count()
    looked = False

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal looked
        inside: FrameType | None = frame  # before Python 3.12 a comprehension has its own frame
        while inside is not None and inside.f_code is not DrainRecord.begin.__code__:
            inside = inside.f_back
        if inside is None or looked:
            return None
        if event == "line" and next(lines) == at:  # also at each turn of a loop in one line
            looked = True
            look()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        drainer.notifier.publish()
    finally:
        sys.settrace(before)
    return looked


async def test_a_look_at_the_statistics_may_interrupt_the_beginning_of_a_drain() -> None:
    for at in range(1000):
        drainer = DrainRunner(DrainPolicy(), clock=virtual_clock())
        drain_and_resume(drainer, 2)
        totals: list[int] = []

        def look(drainer: DrainRunner = drainer, totals: list[int] = totals) -> None:
            totals.append(drainer.statistics().totals["completed"])

        drainer.begin("test")
        if not interrupted(drainer, at, look):
            break
        look()
        assert totals == [2, 2]
    assert at > 5


class Job:
    """Can be referred to weakly."""


async def test_work_that_was_stuck_in_a_drain_is_not_kept_beyond_the_next() -> None:
    drainer = DrainRunner(DrainPolicy(), clock=virtual_clock())

    async def one_stuck() -> weakref.ref[Any]:
        job = Job()
        with drainer.track("job"):
            works = list(drainer.in_flight)
            works[0].__dict__["job"] = job
            drainer.begin("test")
            await drainer.record.note_stuck(drainer.state, works, drainer.now())
        return weakref.ref(job)

    job = await one_stuck()
    drainer.resume()
    drainer.notifier.publish()
    drain_and_resume(drainer, 1)
    gc.collect()
    assert job() is None
