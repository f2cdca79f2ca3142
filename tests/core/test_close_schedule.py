"""The times at which work is closed: spread over the lame duck, or as the grace period ends."""

from __future__ import annotations

import itertools
import logging
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from support.asgi import FakeAdapter
from support.records import event, extras
from support.virtual_time import virtual_clock, virtual_time

from graceful_asgi import DrainPolicy, Phase
from graceful_asgi._core.close_schedule import HURRIED_PERIOD, NOTICE_PERIOD
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._core.work import CloseWhen, Work
from graceful_asgi.event_loop import SLICE

if TYPE_CHECKING:
    from graceful_asgi.report import Kind

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


POLICY = DrainPolicy(lame_duck_period=10, grace_period=20, cancel_period=2)


class LongLived(Work):
    """Work that goes on until it is closed, and knows when that was."""

    kind: Kind = "websocket"  # type: ignore[misc]  # a property of `Work`

    def __init__(self, drainer: DrainRunner, when: CloseWhen = "on drain") -> None:
        self.closed: list[float] = []
        self._when = when
        self._drainer = drainer
        drainer.in_flight.enter(self)
        self.task = None  # not the test's own

    @property
    def close_when(self) -> CloseWhen:
        return self._when

    async def close(self, patience_end: float, *, hurried: bool = False) -> None:
        self.patience = patience_end - self._drainer.now()
        self.hurried = hurried
        await self.close_now()

    async def close_now(self) -> None:
        self.closed.append(self._drainer.statistics().elapsed)
        self._drainer.in_flight.leave(self)


class Stubborn(LongLived):
    """Work that cannot be closed when its time has come."""

    async def close(self, patience_end: float, *, hurried: bool = False) -> None:
        self.closed.append(self._drainer.statistics().elapsed)

    async def close_now(self) -> None:
        self.closed.append(self._drainer.statistics().elapsed)


class Broken(LongLived):
    async def close_now(self) -> None:
        self.closed.append(self._drainer.statistics().elapsed)
        raise LookupError("cannot close")


def drainer_of(policy: DrainPolicy = POLICY) -> DrainRunner:
    drainer = DrainRunner(policy, clock=virtual_clock())
    drainer.bind(anew=True)
    return drainer


async def drain(drainer: DrainRunner) -> None:
    drainer.stop("SIGTERM")
    await drainer.drain(FakeAdapter(drainer))


def times(works: list[Any]) -> list[float]:
    assert all(len(work.closed) == 1 for work in works), "each once"
    return sorted(work.closed[0] for work in works)


async def test_the_closes_are_spread_evenly_over_the_lame_duck() -> None:
    drainer = drainer_of()
    works = [LongLived(drainer) for _ in range(20)]
    await drain(drainer)
    assert times(works) == pytest.approx([0.25 + 0.5 * place for place in range(20)], abs=0.01)
    assert drainer.report().completed == 20


async def test_without_a_lame_duck_all_are_closed_at_once() -> None:
    drainer = drainer_of(DrainPolicy(lame_duck_period=0))
    works = [LongLived(drainer) for _ in range(20)]
    await drain(drainer)
    assert times(works) == pytest.approx([0] * 20, abs=0.01)


async def test_what_comes_later_is_spread_over_what_is_left() -> None:
    drainer = drainer_of()
    drainer.begin("test")
    await anyio.sleep(4)
    works = [LongLived(drainer) for _ in range(50)]
    for work in works:
        drainer.arrived(work)
        drainer.close_schedule.add(work)
    await drain(drainer)
    ended = times(works)
    assert 4 <= ended[0] < ended[-1] <= 10
    assert len({round(end) for end in ended}) > 3, "not all in one instant"


async def test_what_comes_after_the_lame_duck_is_closed_at_once() -> None:
    drainer = drainer_of()
    drainer.begin("test")
    await anyio.sleep(15)  # a begin holds the server there until a stop comes
    work = LongLived(drainer)
    drainer.arrived(work)
    await anyio.sleep(1)
    assert times([work]) == [pytest.approx(15, abs=0.01)]


async def test_a_lame_duck_that_is_cut_short_closes_what_is_left() -> None:
    drainer = drainer_of()
    works = [LongLived(drainer) for _ in range(10)]
    drainer.begin("test")
    await anyio.sleep(3)
    drainer.stop("SIGINT", lame_duck=False)
    await anyio.sleep(0.01)
    ended = times(works)
    assert ended[:3] == pytest.approx([0.5, 1.5, 2.5], abs=0.01)
    assert ended[3:] == pytest.approx([3] * 7, abs=0.02)


async def test_a_lame_duck_that_quiet_may_end_is_taken_for_as_long_as_it_lasts_at_least() -> None:
    drainer = drainer_of(DrainPolicy(lame_duck_period=10, quiet_period=2))
    works = [LongLived(drainer) for _ in range(4)]
    await drain(drainer)
    assert times(works) == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=0.01)


async def test_a_drain_that_is_called_off_closes_no_more_and_a_new_one_starts_anew() -> None:
    drainer = drainer_of()
    works = [LongLived(drainer) for _ in range(10)]
    drainer.begin("test")
    await anyio.sleep(2)  # two are ended
    drainer.resume()
    await anyio.sleep(20)
    assert sum(map(len, (work.closed for work in works))) == 2
    drainer.begin("again")
    drainer.resume()
    drainer.begin("and again")
    await anyio.sleep(10.1)
    assert times(works)[-1] == pytest.approx(10 - 10 / 16, abs=0.01)


async def test_what_may_go_on_is_closed_just_before_the_grace_period_is_over() -> None:
    drainer = drainer_of()
    works = [LongLived(drainer, "at deadline") for _ in range(3)]
    await drain(drainer)
    assert times(works) == pytest.approx([29.5] * 3, abs=0.01)
    assert len(drainer.report().stuck) == 3, "its deadline passed, if not the last one"


async def test_of_a_short_grace_period_it_gets_half() -> None:
    drainer = drainer_of(DrainPolicy(lame_duck_period=0, grace_period=0.2))
    work = LongLived(drainer, "at deadline")
    await drain(drainer)
    assert times([work]) == [pytest.approx(0.1, abs=0.01)]


async def test_a_begin_gives_it_no_deadline() -> None:
    drainer = drainer_of()
    work = LongLived(drainer, "at deadline")
    drainer.begin("test")
    await anyio.sleep(3600)
    assert not work.closed


async def test_what_cannot_be_closed_yet_gets_another_chance_as_it_is_cancelled() -> None:
    drainer = drainer_of()
    works = [Stubborn(drainer, "at deadline"), Stubborn(drainer, "on drain")]
    await drain(drainer)
    for work in works:
        assert work.closed[-1] == pytest.approx(30, abs=0.01)
        assert len(work.closed) == 2
    assert len(drainer.report().stuck) == 2, "each is named once"


async def test_what_is_never_closed_is_left_alone() -> None:
    drainer = drainer_of()
    work = LongLived(drainer, "never")
    await drain(drainer)
    assert not work.closed
    assert drainer.report().aborted == 1


async def test_an_abort_closes_what_it_can() -> None:
    drainer = drainer_of()
    works = [LongLived(drainer), LongLived(drainer, "at deadline")]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, drainer)
        await anyio.sleep(1)
        drainer.abort()
    assert times(works) == pytest.approx([1, 1], abs=0.01)


async def test_one_that_fails_is_logged_and_changes_nothing_about_the_drain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drainer = drainer_of()
    broken, sound = Broken(drainer), LongLived(drainer)
    await drain(drainer)
    assert drainer.phase is Phase.CLEANUP
    assert drainer.statistics().elapsed == pytest.approx(32, abs=0.2)
    assert sorted(broken.closed[:1] + sound.closed) == pytest.approx([2.5, 7.5], abs=0.01)
    assert "closing websocket" in caplog.text


async def test_the_log_says_once_what_is_closed_over_which_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    drainer = drainer_of()
    for _ in range(3):
        LongLived(drainer)
    await drain(drainer)
    events = [event(record) for record in caplog.records]
    assert events.count("drain.closing") == 1
    said: Any = caplog.records[events.index("drain.closing")]
    assert said.getMessage().endswith("closing 3 WebSockets over 10.0 s")
    assert extras(said)["websocket"] == 3


async def test_nothing_is_said_where_nothing_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    await drain(drainer_of())
    events = [event(record) for record in caplog.records]
    assert "drain.phase" in events
    assert "drain.closing" not in events


# What work is told


async def test_work_is_told_for_how_long_it_may_wait_for_a_boundary_that_nobody_sees() -> None:
    """For half the grace period each, so that these closes are spread like the others."""
    drainer = drainer_of()
    works = [LongLived(drainer) for _ in range(4)]
    await drain(drainer)
    assert [work.patience for work in works] == [10] * 4
    assert not any(work.hurried for work in works)


async def test_where_somebody_waits_it_is_told_so() -> None:
    drainer = drainer_of()
    work = LongLived(drainer)
    drainer.stop("SIGINT", lame_duck=False)
    await drainer.drain(FakeAdapter(drainer))
    assert times([work]) == [pytest.approx(0, abs=0.01)]
    assert (work.patience, work.hurried) == (HURRIED_PERIOD, True)


class Waiting(LongLived):
    """Work that waits for a boundary, until it is told that it need not."""

    withdrawn = False

    async def close(self, patience_end: float, *, hurried: bool = False) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.withdrawn = True
            raise


async def test_a_drain_that_is_called_off_withdraws_what_it_has_told() -> None:
    drainer = drainer_of(DrainPolicy(lame_duck_period=0, grace_period=20))
    works = [Waiting(drainer) for _ in range(3)]
    drainer.begin("test")
    await anyio.sleep(1)
    assert not any(work.withdrawn for work in works)
    drainer.resume()
    await anyio.sleep(0.01)
    assert all(work.withdrawn for work in works)


class Unaware(LongLived):
    """Work whose app has not noticed its close."""

    unaware = True

    async def close_now(self) -> None:
        self.closed.append(self._drainer.statistics().elapsed)
        self._drainer.close_schedule.watch(self)


async def test_an_app_that_does_not_notice_a_close_is_cancelled_a_moment_later() -> None:
    drainer = drainer_of()
    notices, aware = Unaware(drainer), Unaware(drainer)
    drainer.begin("test")
    await anyio.sleep(2.51)  # one of them is closed by now
    first, second = (notices, aware) if notices.closed else (aware, notices)
    await anyio.sleep(NOTICE_PERIOD)
    assert (first.cancelled, second.cancelled) == (True, False)
    await anyio.sleep(4.7)  # the other one, too, and a moment ago
    second.unaware = False
    await anyio.sleep(1)
    assert second.closed
    assert not second.cancelled


class Watched(LongLived):
    """Work that ends with its close, as the plan may look whether it has noticed that."""

    async def close_now(self) -> None:
        await super().close_now()
        self._drainer.close_schedule.watch(self)


@pytest.mark.parametrize("kind", [LongLived, Watched])
async def test_a_plan_keeps_nothing_of_what_it_has_closed(kind: type[LongLived]) -> None:
    """Ten thousand requests with all that they refer to would stay until the process ends."""
    drainer = drainer_of()
    works = [kind(drainer) for _ in range(20)]  # the last is closed just before the end
    kept = [weakref.ref(work) for work in works]
    await drain(drainer)
    await anyio.wait_all_tasks_blocked()
    del works
    assert [ref() for ref in kept] == [None] * 20


class Hung(LongLived):
    """A request that nobody has had an answer of."""

    is_unanswered = True

    def cancellable(self) -> None:
        self.closed.append(self._drainer.now())
        self._drainer.in_flight.leave(self)


class SlowToClose(LongLived):
    """Work that reaches no boundary before its deadline, and takes a moment to be closed there."""

    async def close(self, patience_end: float, *, hurried: bool = False) -> None: ...

    async def close_now(self) -> None:
        await anyio.sleep(0.05)
        self.closed.append(self._drainer.now())
        self._drainer.in_flight.leave(self)


async def test_what_hangs_is_cancelled_before_the_last_streams_are_closed() -> None:
    drainer = drainer_of(DrainPolicy(lame_duck_period=0, grace_period=1))
    hung = Hung(drainer, "never")
    streams = [SlowToClose(drainer, "at deadline") for _ in range(20)]
    await drain(drainer)
    assert len(hung.closed) == 1
    assert hung.closed[0] < min(work.closed[0] for work in streams)


async def test_ten_thousand_are_told_in_slices_that_let_everything_else_run() -> None:
    drainer = drainer_of(DrainPolicy(lame_duck_period=0, grace_period=20))
    works = [LongLived(drainer) for _ in range(2000)]
    turns = [0]

    async def count() -> None:
        while len(drainer.in_flight):
            turns.append(sum(map(len, (work.closed for work in works))))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        drainer.begin("test")
    steps = [after - before for before, after in itertools.pairwise(turns)]
    assert sum(steps) >= len(works) - 3 * SLICE, "the last of them leave nobody to count them"
    assert max(steps) <= 3 * SLICE, "trio may run a slice or two before the counter"
