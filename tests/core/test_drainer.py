"""Whole drains, in virtual time: what happens when, and what the report says of it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import logging.handlers
import math
import queue
import signal
import threading
from typing import TYPE_CHECKING, Any, Literal, cast

import anyio
import anyio.to_thread
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.asgi import Call, FakeAdapter, answer, http_scope
from support.polling import PATIENCE
from support.records import event, extras
from support.virtual_time import ManualClock, VirtualTimeLoop, virtual_clock, virtual_time

from graceful_asgi import Drainer, DrainPolicy, DrainReport, GracefulMiddleware, Phase
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi.errors import MisuseError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.abc import TaskGroup

    from graceful_asgi.phase import PhaseChange

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


class Boom(Exception):
    pass


def in_virtual_time(policy: DrainPolicy | None = None) -> DrainRunner:
    return DrainRunner(policy, clock=virtual_clock())


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-3)


class Drain:
    """A drainer with work in flight, and the moments at which its phases began."""

    def __init__(self, tasks: TaskGroup, policy: DrainPolicy | None = None) -> None:
        self.drainer = in_virtual_time(policy)
        self.adapter = FakeAdapter(self.drainer)
        self.phases: dict[str, float] = {}
        self.over = anyio.Event()
        self._tasks = tasks
        self._began = self.drainer.now()
        as_drainer(self.drainer).add_hook(self._note)

    def _note(self, change: PhaseChange) -> None:
        self.phases[change.phase.value] = self.now()

    def now(self) -> float:
        return self.drainer.now() - self._began

    async def work(self, seconds: float, *, unwinding: float = 0.0) -> None:
        """Hold work in flight for so long. When it is cancelled, its end takes *unwinding*."""
        inside = anyio.Event()
        self._tasks.start_soon(self._work, seconds, unwinding, inside)
        await inside.wait()

    async def _work(self, seconds: float, unwinding: float, inside: anyio.Event) -> None:
        try:
            with self.drainer.track(f"{seconds} s"):
                inside.set()
                try:
                    await anyio.sleep(seconds)
                except anyio.get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(unwinding)
                    raise
        except asyncio.CancelledError:
            pass  # the task is the work's own: it ends here

    def start(self) -> None:
        """Run the drain, as a server does when it has been told to stop."""
        self._tasks.start_soon(self.run)

    async def run(self) -> DrainReport:
        await self.drainer.drain(self.adapter)
        self.over.set()
        return self.drainer.report()


# How long each phase takes


async def test_a_drain_with_nothing_in_flight_takes_the_lame_duck_and_no_longer() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.stop("SIGTERM")
        report = await drain.run()
    assert drain.now() == about(5)
    assert drain.phases == {"lame duck": about(0), "draining": about(5), "cleanup": about(5)}
    assert drain.adapter.times == {"close_listener": about(5)}
    assert report.clean


async def test_a_drain_with_stubborn_work_takes_every_period_and_no_longer() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(1)
        await drain.work(19)
        await drain.work(math.inf)
        await drain.work(math.inf, unwinding=1)
        await drain.work(math.inf, unwinding=1000)
        drain.drainer.stop("SIGTERM")
        report = await drain.run()
        ended = drain.now()
    assert ended == about(5 + 15 + 2)
    assert drain.phases == {
        "lame duck": about(0),
        "draining": about(5),
        "cancelling": about(20),
        "cleanup": about(22),
    }
    assert drain.adapter.times == {
        "close_listener": about(5),
        "cut_answers": about(20),
        "cut_connections": about(22),
    }
    assert (report.completed, report.cancelled, report.aborted) == (2, 2, 1)
    assert not report.clean
    assert sorted((work.path, round(work.age)) for work in report.stuck) == [("inf s", 20)] * 3


async def test_a_drain_is_over_the_moment_the_last_work_ends() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(7.5)
        drain.drainer.stop("SIGTERM")
        report = await drain.run()
    assert drain.now() == about(7.5)
    assert (report.completed, report.clean, report.elapsed) == (1, True, about(7.5))


async def test_cancelled_work_that_unwinds_soon_ends_the_cancel_period_early() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(math.inf, unwinding=0.5)
        drain.drainer.stop("SIGTERM")
        await drain.run()
    assert drain.now() == about(20.5)


async def test_the_drain_waits_for_the_edge_to_be_idle_too() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.adapter.idle = False
        drain.drainer.stop("SIGTERM", lame_duck=False)
        drain.start()
        await anyio.sleep(3)
        assert not drain.over.is_set()
        drain.adapter.idle = True
        drain.drainer.notifier.wake()
        await drain.over.wait()
    assert drain.now() == about(3)
    assert drain.drainer.report().clean


async def test_an_edge_that_is_never_idle_is_cut_at_the_end_of_the_cancel_period() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.adapter.idle = False
        drain.adapter.slow_readers = 3
        drain.drainer.stop("SIGTERM", lame_duck=False)
        report = await drain.run()
    assert drain.now() == about(17)
    assert drain.adapter.times["cut_connections"] == about(17)
    assert report.aborted == 3
    assert not report.clean


# Triggers, and when they come


async def test_a_stop_after_a_begin_waits_for_what_is_left_of_the_lame_duck() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.begin("drain endpoint")
        await anyio.sleep(3)
        drain.drainer.stop("SIGTERM")
        report = await drain.run()
    assert drain.adapter.times["close_listener"] == about(5)
    assert report.reason == "drain endpoint"
    assert report.elapsed == about(5)


async def test_a_stop_long_after_a_begin_ends_the_process_at_once() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.begin("drain endpoint")
        await anyio.sleep(60)
        drain.drainer.stop("SIGTERM")
        await drain.run()
    assert drain.now() == about(60)


@pytest.mark.parametrize("begun", [0, 3, 60])
async def test_the_time_left_is_the_time_until_work_is_cancelled(begun: float) -> None:
    """A server arms its hard deadline by it."""
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(math.inf)
        drain.drainer.begin("drain endpoint")
        await anyio.sleep(begun)
        drain.drainer.stop("SIGTERM")
        expected = drain.now() + drain.drainer.time_left()
        drain.start()
        await anyio.sleep(1)
        assert drain.now() + drain.drainer.time_left() == about(expected)
        await drain.over.wait()
    assert drain.phases["cancelling"] == about(expected)


@pytest.mark.parametrize("begun", [0, 1])
async def test_a_stop_without_a_lame_duck_closes_the_listener_at_once(begun: float) -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        if begun:
            drain.drainer.begin("drain endpoint")
            await anyio.sleep(begun)
        drain.drainer.stop("SIGINT", lame_duck=False)
        await drain.run()
    assert drain.now() == about(begun)


async def test_a_quiet_period_ends_the_lame_duck_early_unless_requests_come() -> None:
    policy = DrainPolicy(lame_duck_period=5, quiet_period=1)
    async with anyio.create_task_group() as tasks:
        quiet, busy = Drain(tasks, policy), Drain(tasks, policy)
        app = GracefulMiddleware(answer, drainer=as_drainer(busy.drainer))
        for drain in (quiet, busy):
            drain.drainer.stop("SIGTERM")
            drain.start()
        for _ in range(4):
            await anyio.sleep(0.75)
            assert (await Call(app, http_scope()).run()).status == 200
        await busy.over.wait()
    assert quiet.adapter.times["close_listener"] == about(1)
    assert busy.adapter.times["close_listener"] == about(4)


async def test_requests_never_hold_the_lame_duck_longer_than_its_period() -> None:
    policy = DrainPolicy(lame_duck_period=2, quiet_period=1)
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks, policy)
        app = GracefulMiddleware(answer, drainer=as_drainer(drain.drainer))
        drain.drainer.stop("SIGTERM")
        drain.start()
        for _ in range(10):
            await anyio.sleep(0.5)
            await Call(app, http_scope()).run()
        await drain.over.wait()
    assert drain.adapter.times["close_listener"] == about(2)


async def test_a_begin_without_a_lame_duck_is_drained_as_soon_as_the_work_is() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(1)
        drain.drainer.begin("drain endpoint", lame_duck=False)
        await as_drainer(drain.drainer).wait_drained()
    assert drain.now() == about(1)
    assert drain.drainer.phase is Phase.LAME_DUCK


@pytest.mark.parametrize("at", [1, 10])
async def test_an_abort_cancels_at_once_in_every_phase_that_waits(at: float) -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(math.inf)
        await drain.work(math.inf, unwinding=100)
        drain.drainer.stop("SIGTERM")
        drain.start()
        await anyio.sleep(at)
        assert drain.drainer.abort()
        await drain.over.wait()
        ended = drain.now()
    assert drain.phases["cancelling"] == about(at)
    assert ended == about(at + 2)
    assert (drain.drainer.report().cancelled, drain.drainer.report().aborted) == (1, 1)


async def test_an_abort_with_nothing_in_flight_still_closes_the_listener() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.stop("SIGTERM")
        drain.start()
        await anyio.sleep(1)
        drain.drainer.abort()
        await drain.over.wait()
    assert drain.adapter.times["close_listener"] == about(1)
    assert drain.drainer.phase is Phase.CLEANUP


async def test_a_stop_after_an_abort_ends_the_drain() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(math.inf, unwinding=1)
        drain.drainer.begin("drain endpoint")
        drain.drainer.abort()
        drain.drainer.stop("SIGTERM")
        await drain.run()
    assert drain.now() == about(1)
    assert drain.drainer.phase is Phase.CLEANUP


# The end, and a new beginning


async def test_finish_ends_the_drain_once_and_stops_its_clock() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.stop("SIGTERM")
        await drain.run()
        await anyio.sleep(2)
        first = drain.drainer.finish()
        await anyio.sleep(2)
    assert drain.drainer.phase is Phase.STOPPED
    assert first.elapsed == about(7)
    assert drain.drainer.finish() == first == drain.drainer.report()
    assert drain.drainer.statistics().elapsed == about(7)
    assert drain.phases["stopped"] == about(7)


async def test_finish_before_a_drain_changes_nothing() -> None:
    drainer = in_virtual_time()
    drainer.finish()
    assert drainer.phase is Phase.SERVING


async def test_a_drainer_serves_again_where_a_server_starts_anew() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.stop("SIGTERM")
        await drain.run()
        drain.drainer.finish()
        drain.drainer.bind(anew=True)
        assert drain.drainer.phase is Phase.SERVING
        assert not drain.drainer.state.stopping
        assert drain.drainer.statistics().elapsed == 0.0
        assert drain.drainer.begin("again")


async def test_what_the_cleanup_overran_is_in_the_report() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.stop("SIGTERM")
        with drain.drainer.track("export"):
            oldest = drain.drainer.statistics().oldest
        assert oldest is not None
        await drain.run()
        drain.drainer.record.overran(drain.drainer.state, oldest)
    assert not drain.drainer.report().clean
    assert drain.drainer.report().stuck == (oldest,)
    assert drain.drainer.report().aborted == 1


# Waiting


async def test_wait_drained_waits_for_the_lame_duck_and_the_work_in_flight() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(8)
        drain.drainer.begin("drain endpoint")
        report = await as_drainer(drain.drainer).wait_drained()
        assert drain.now() == about(8)
        assert report.completed == 1
        await as_drainer(drain.drainer).wait_drained()
        assert drain.now() == about(8)
    assert drain.drainer.phase is Phase.LAME_DUCK


async def test_wait_drained_with_nothing_in_flight_takes_the_lame_duck() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        drain.drainer.begin("drain endpoint")
        await as_drainer(drain.drainer).wait_drained()
    assert drain.now() == about(5)


async def test_wait_drained_waits_for_a_drain_to_begin_and_through_a_resume() -> None:
    drained = anyio.Event()
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)

        async def wait() -> None:
            await as_drainer(drain.drainer).wait_drained()
            drained.set()

        tasks.start_soon(wait)
        await anyio.sleep(10)
        drain.drainer.begin("first")
        await anyio.sleep(4)
        drain.drainer.resume()
        await anyio.sleep(10)
        assert not drained.is_set()
        drain.drainer.begin("second")
        await drained.wait()
    assert drain.now() == about(29)


async def test_wait_drained_returns_when_a_stop_has_drained_the_server() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await drain.work(math.inf)
        drain.drainer.stop("SIGTERM")
        drain.start()
        report = await as_drainer(drain.drainer).wait_drained()
    assert drain.now() == about(20)
    assert report.cancelled == 1
    assert (await as_drainer(drain.drainer).wait_drained()) == report


async def test_wait_begun_returns_as_a_drain_begins_and_at_once_afterwards() -> None:
    drainer = in_virtual_time()
    began = anyio.Event()

    async def wait() -> None:
        await drainer.wait_begun()
        began.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(100)
        assert not began.is_set()
        drainer.begin("test")
        await began.wait()
    await drainer.wait_begun()


# From threads and signal handlers


@pytest.fixture
def locked_log() -> Iterator[Callable[[], Any]]:
    """The lock of a log that goes through a queue: whoever logs while it is held, hangs."""
    log: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = logging.handlers.QueueHandler(log)
    logger = logging.getLogger("graceful_asgi")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: log.mutex
    logger.removeHandler(handler)
    logger.setLevel(level)


TRIGGERS: dict[str, Callable[[DrainRunner], object]] = {
    "begin": lambda drainer: drainer.begin("test"),
    "stop": lambda drainer: drainer.stop("test"),
    "a second stop": lambda drainer: (drainer.stop("test"), drainer.stop("again")),
    "resume": lambda drainer: (drainer.begin("test"), drainer.resume()),
    "abort": lambda drainer: (drainer.begin("test"), drainer.abort()),
    "statistics": lambda drainer: (drainer.statistics(), drainer.report()),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trigger", TRIGGERS)
async def test_a_trigger_in_a_signal_handler_waits_for_no_lock(
    trigger: str, locked_log: Callable[[], Any]
) -> None:
    drainer = in_virtual_time()
    drainer.bind(anew=True)
    handled: list[int] = []

    def handle(signum: int, frame: object) -> None:
        TRIGGERS[trigger](drainer)
        handled.append(signum)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        with locked_log():
            signal.raise_signal(signal.SIGUSR1)
        assert handled == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)
    await anyio.sleep(0.01)  # virtual: the loop says what the handler could not


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trigger", TRIGGERS)
async def test_a_trigger_in_another_thread_waits_for_no_lock(
    trigger: str, locked_log: Callable[[], Any]
) -> None:
    drainer = in_virtual_time()
    drainer.bind(anew=True)
    thread = threading.Thread(target=TRIGGERS[trigger], args=(drainer,), daemon=True)
    with locked_log():
        thread.start()
        thread.join(PATIENCE / 4)
        assert not thread.is_alive()


async def test_a_drain_begun_in_another_thread_wakes_who_waits() -> None:
    drainer = in_virtual_time()
    drainer.bind(anew=True)
    phases: list[tuple[Phase, int]] = []
    as_drainer(drainer).add_hook(
        lambda change: phases.append((change.phase, threading.get_ident()))
    )
    begun = anyio.Event()

    async def wait() -> None:
        await drainer.wait_begun()
        begun.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(1)
        await anyio.to_thread.run_sync(drainer.begin, "control socket")
        await begun.wait()
        await anyio.sleep(1)
    assert phases == [(Phase.LAME_DUCK, threading.get_ident())]


async def test_a_drain_begun_in_a_signal_handler_wakes_who_waits() -> None:
    drainer = in_virtual_time()
    drainer.bind(anew=True)
    previous = signal.signal(signal.SIGUSR1, lambda *_: drainer.begin("SIGUSR1"))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drainer.wait_begun)
            await anyio.sleep(1)
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert drainer.statistics().reason == "SIGUSR1"


async def test_a_drain_begun_before_the_loop_runs_keeps_to_its_periods() -> None:
    """In trio time does not begin where the monotonic clock stands."""
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        await anyio.to_thread.run_sync(drain.drainer.begin, "before the start")
        drain.drainer.bind(anew=True)
        began = anyio.current_time()
        drain.drainer.stop("SIGTERM")
        with anyio.move_on_after(100):
            await drain.run()
    assert anyio.current_time() - began == about(5)


# Hooks


async def test_hooks_are_told_of_each_phase_in_order_on_the_loop() -> None:
    told: list[tuple[str, str, str, int]] = []
    threads: set[int] = set()

    def tell(name: str) -> Callable[[PhaseChange], None]:
        def hook(change: PhaseChange) -> None:
            told.append((name, change.previous.value, change.phase.value, change.in_flight))
            threads.add(threading.get_ident())

        return hook

    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        as_drainer(drain.drainer).add_hook(tell("a"))
        as_drainer(drain.drainer).add_hook(tell("b"))
        await drain.work(10)
        drain.drainer.stop("SIGTERM")
        await drain.run()
        drain.drainer.finish()
    steps = [
        ("serving", "lame duck", 1),
        ("lame duck", "draining", 1),
        ("draining", "cleanup", 0),
        ("cleanup", "stopped", 0),
    ]
    assert told == [(name, *step) for step in steps for name in ("a", "b")]
    assert threads == {threading.get_ident()}


async def test_a_hook_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(change: PhaseChange) -> None:
        raise Boom("broken hook")

    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        as_drainer(drain.drainer).add_hook(broken)
        told: list[Phase] = []
        as_drainer(drain.drainer).add_hook(lambda change: told.append(change.phase))
        drain.drainer.stop("SIGTERM")
        report = await drain.run()
    assert drain.now() == about(5)
    assert report.clean
    assert told == [Phase.LAME_DUCK, Phase.DRAINING, Phase.CLEANUP]
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == 3
    assert all("broken hook" in str(record.exc_info and record.exc_info[1]) for record in logged)


async def test_a_hook_may_trigger_the_next_step_itself() -> None:
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks)
        as_drainer(drain.drainer).add_hook(
            lambda change: change.phase is Phase.DRAINING and drain.drainer.abort()
        )
        await drain.work(math.inf)
        drain.drainer.stop("SIGTERM")
        await drain.run()
    assert drain.phases["cancelling"] == about(5)


async def test_the_log_says_how_a_long_drain_goes_every_five_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    async with anyio.create_task_group() as tasks:
        drain = Drain(tasks, DrainPolicy(lame_duck_period=1, grace_period=21))
        await drain.work(20)
        drain.drainer.stop("SIGTERM")
        await drain.run()
    progress = [extras(record) for record in caplog.records if event(record) == "drain.progress"]
    assert len(progress) >= 3
    assert {record["in_flight"] for record in progress} == {1}
    ages = [record["oldest_age"] for record in progress]
    assert all(later - earlier == about(5) for earlier, later in itertools.pairwise(ages))
    assert all(record["oldest_age"] + record["time_left"] == about(22) for record in progress)


# Any order of anything

Trigger = Literal["begin", "stop", "stop at once", "resume", "abort"]


@dataclasses.dataclass(frozen=True)
class Arrival:
    """A piece of work: when it comes, how long it takes, how it ends, and how it unwinds."""

    at: int
    duration: int
    fails: bool
    unwinding: float


arrivals = st.builds(
    Arrival,
    at=st.integers(0, 60),
    duration=st.integers(0, 60),
    fails=st.booleans(),
    unwinding=st.sampled_from([0.0, 0.5, 1.5, 2.5, 50.0]),
)
triggers = st.tuples(
    st.integers(0, 60), st.sampled_from(["begin", "stop", "stop at once", "resume", "abort"])
)


class Story:
    """Runs works and triggers through a drainer, and keeps an account of its own."""

    def __init__(self, works: list[Arrival], triggers: list[tuple[int, Trigger]]) -> None:
        self.drainer = in_virtual_time()
        self.drainer.bind(anew=True)
        self.works = works
        self.triggers = triggers
        self.adapter = FakeAdapter(self.drainer)
        self.running = 0
        self.accountable = 0
        self.report: DrainReport | None = None
        self.stopped_at = self.drained_at = math.inf
        self.frozen = False
        self._stop = anyio.Event()

    async def run(self) -> None:
        self.began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for work in self.works:
                tasks.start_soon(self._work, work)
            for at, trigger in [*self.triggers, (61, "stop")]:
                tasks.start_soon(self._trigger, at, trigger)
            await self._stop.wait()
            self.stopped_at = anyio.current_time()
            await self.drainer.drain(self.adapter)
            self.drained_at = anyio.current_time()
            self.frozen = True
            self.report = self.drainer.report()

    async def _trigger(self, at: int, trigger: str) -> None:
        await anyio.sleep(at + 0.25)  # never in the moment in which a work begins or ends
        drainer = self.drainer
        serving = drainer.phase is Phase.SERVING
        if trigger == "resume":
            if drainer.resume():
                self.accountable = 0
        elif trigger == "abort":
            drainer.abort()
        else:
            if serving:
                self.accountable = self.running
            if trigger == "begin":
                assert drainer.begin("test") is serving
            elif drainer.stop("test", lame_duck=trigger == "stop"):
                self._stop.set()

    async def _work(self, work: Arrival) -> None:
        await anyio.sleep(work.at)
        if self.frozen:  # the listener is closed, and so is everything else
            return
        try:
            with self.drainer.track("work"):
                self.running += 1
                self.accountable += self.drainer.phase is not Phase.SERVING
                try:
                    await anyio.sleep(work.duration)
                    if work.fails:
                        raise Boom
                except anyio.get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(work.unwinding)
                    raise
                finally:
                    self.running -= 1
        except (Boom, asyncio.CancelledError):
            pass

    def check(self) -> None:
        report, policy = self.report, self.drainer.policy
        assert report is not None
        assert self.drainer.statistics().in_flight == 0
        assert report.completed + report.cancelled + report.aborted == self.accountable
        assert report.closed == 0, "nothing here is a stream or a session"
        assert dataclasses.replace(self.drainer.report(), elapsed=report.elapsed) == report
        took = self.drained_at - self.stopped_at
        longest = policy.lame_duck_period + policy.grace_period + policy.cancel_period
        assert took <= longest + 1e-3
        assert self.drainer.phase is Phase.CLEANUP
        assert self.adapter.times["close_listener"] >= 0
        if not report.cancelled and not report.aborted:
            assert report.clean


def test_the_story_itself_is_no_fake() -> None:
    """The account below is empty unless works run, end, and are cancelled in such a story."""
    story = tell([Arrival(0, 5, False, 0), Arrival(0, 60, False, 0), Arrival(0, 60, False, 50)], [])
    assert story.report is not None
    assert (story.report.completed, story.report.cancelled, story.report.aborted) == (0, 0, 0)
    story = tell(story.works, [(1, "stop")])
    assert story.report is not None
    assert (story.report.completed, story.report.cancelled, story.report.aborted) == (1, 1, 1)


def tell(works: list[Arrival], triggers: list[tuple[int, Trigger]], backend: str = "trio") -> Story:
    stories: list[Story] = []

    async def run() -> None:
        stories.append(Story(works, triggers))
        await stories[0].run()

    if backend == "trio":
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    else:
        anyio.run(run, backend_options={"loop_factory": VirtualTimeLoop})
    return stories[0]


@settings(max_examples=150)
@given(st.lists(arrivals, max_size=8), st.lists(triggers, max_size=6))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_any_order_the_count_ends_at_zero_the_deadline_holds_and_the_report_adds_up(
    backend: str, works: list[Arrival], triggers: list[tuple[int, Trigger]]
) -> None:
    story = tell(works, triggers, backend)
    story.check()


def test_a_hook_that_would_have_to_be_awaited_is_refused() -> None:
    async def hook(change: PhaseChange) -> None:
        raise NotImplementedError

    class Hook:
        async def __call__(self, change: PhaseChange) -> None:
            raise NotImplementedError

    for each in (hook, Hook()):
        with pytest.raises(MisuseError, match="coroutine function"):
            Drainer(DrainPolicy()).add_hook(each)
    with pytest.raises(MisuseError, match="None cannot be called"):
        Drainer(DrainPolicy()).add_hook(cast("Any", None))


@pytest.mark.parametrize("value", [3, {"grace_period": 3}, DrainPolicy, "20s"], ids=str)
def test_a_drainer_refuses_what_is_no_policy(value: Any) -> None:
    with pytest.raises(PolicyError, match=r"^policy=.*; allowed: a DrainPolicy, or None"):
        Drainer(value)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "5", True, 10**400], ids=repr)
def test_a_begin_with_a_bad_time_changes_nothing(value: Any) -> None:
    drainer = Drainer(DrainPolicy())
    with pytest.raises(PolicyError, match=r"^resume_after=.*; allowed: .*seconds"):
        drainer.begin("test", resume_after=value)
    assert drainer.phase is Phase.SERVING


@pytest.mark.parametrize("value", [None, 3, b"test"], ids=repr)
def test_a_reason_and_a_name_are_texts(value: Any) -> None:
    drainer = Drainer(DrainPolicy())
    with pytest.raises(PolicyError, match=r"^reason=.*; allowed: a text"):
        drainer.begin(value)
    with pytest.raises(PolicyError, match=r"^name=.*; allowed: a text"):
        drainer.track(value)
    assert drainer.phase is Phase.SERVING


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_a_drain_that_began_in_an_earlier_loop_is_undone_in_the_loop_of_the_server(
    turns: int,
) -> None:
    clock = ManualClock()
    drainer = DrainRunner(DrainPolicy(), clock=clock)

    async def begin() -> None:
        drainer.begin("test", resume_after=5)
        for _ in range(turns):
            await asyncio.sleep(0)

    async def serve() -> None:
        drainer.bind(anew=True)
        with anyio.fail_after(PATIENCE):
            await drainer.notifier.wait_for(lambda: drainer.serving)

    asyncio.run(begin())
    assert drainer.phase is Phase.LAME_DUCK
    clock.move(5)
    asyncio.run(serve())


async def test_a_drainer_by_itself_calls_its_hooks_and_undoes_its_drain() -> None:
    """No server has bound a loop: the loop that the drain begins in takes the place."""
    drainer = as_drainer(in_virtual_time(DrainPolicy(lame_duck_period=0)))
    phases: list[Phase] = []
    drainer.add_hook(lambda change: phases.append(change.phase))
    drainer.begin("one", resume_after=1)
    drainer.begin("two", resume_after=2)
    await anyio.sleep(1.5)
    assert phases == [Phase.LAME_DUCK]
    await anyio.sleep(1)
    assert phases == [Phase.LAME_DUCK, Phase.SERVING]
