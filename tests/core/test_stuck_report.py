"""The stuck report: when it is made, what it says, and that it stops nothing."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.asgi import END, OK, Call, FakeAdapter, http_scope, websocket_scope
from support.polling import PATIENCE
from support.records import event, extras
from support.virtual_time import ManualClock, virtual_clock, virtual_time

from graceful_asgi import DrainPolicy, GracefulMiddleware
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._diagnostics.loop_monitor import SILENCE, LoopMonitor
from graceful_asgi.log import MOST_STUCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.asgi import Receive, Send

LONG = DrainPolicy(lame_duck_period=5, grace_period=15)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


@pytest.fixture
def captured(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="graceful_asgi")
    return caplog


class Noted(logging.Handler):
    """Notes when a report came, in seconds since the drain began."""

    def __init__(self, drainer: DrainRunner) -> None:
        super().__init__()
        self.reports: list[tuple[float, Any]] = []
        self._drainer = drainer

    def emit(self, record: logging.LogRecord) -> None:
        if event(record) == "drain.stuck_report":
            self.reports.append((self._drainer.statistics().elapsed, record))


@asynccontextmanager
async def drain(
    policy: DrainPolicy, *seconds: float
) -> AsyncIterator[tuple[DrainRunner, list[tuple[float, Any]]]]:
    """Stop a drainer with work in flight that takes so many seconds; yield it when all is over."""
    drainer = DrainRunner(policy, clock=virtual_clock())
    noted = Noted(drainer)
    logger = logging.getLogger("graceful_asgi")
    logger.addHandler(noted)

    async def work(length: float) -> None:
        with anyio.CancelScope(), drainer.track(f"{length} s"):
            await anyio.sleep(length)

    try:
        async with anyio.create_task_group() as tasks:
            for length in seconds:
                tasks.start_soon(work, length)
            await anyio.wait_all_tasks_blocked()
            drainer.stop("SIGTERM")
            await drainer.drain(FakeAdapter(drainer))
            drainer.finish()
            tasks.cancel_scope.cancel()
        yield drainer, noted.reports
    finally:
        logger.removeHandler(noted)


@pytest.mark.anyio
async def test_the_report_comes_once_and_a_second_before_the_grace_period_ends() -> None:
    async with drain(LONG, 19.5, 100) as (drainer, reports):
        ((age, record),) = reports
        assert age == pytest.approx(19, abs=0.01)
        figures = extras(record)
        assert figures["in_flight"] == 2
        assert figures["time_left"] == pytest.approx(1, abs=0.01)
        assert {work["path"] for work in figures["stuck"]} == {"19.5 s", "100 s"}
        stuck = [work.path for work in drainer.report().stuck]
        assert stuck == ["100 s"], "what ends in that second is not stuck"


@pytest.mark.anyio
async def test_of_a_short_grace_period_half_is_left_at_the_report() -> None:
    async with drain(DrainPolicy(lame_duck_period=0, grace_period=0.5), 100) as (_, reports):
        ((age, _record),) = reports
        assert age == pytest.approx(0.25, abs=0.01)


@pytest.mark.anyio
async def test_there_is_no_report_where_everything_ends_in_time() -> None:
    async with drain(LONG, 18) as (_, reports):
        assert reports == []


@pytest.mark.anyio
async def test_a_report_that_fails_shortens_no_drain_and_stops_none(
    monkeypatch: pytest.MonkeyPatch, captured: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RecursionError("as deep as can be")

    monkeypatch.setattr("graceful_asgi._core.stuck_report.build_stuck_report", fails)
    async with drain(LONG, 19.5, 100) as (drainer, reports):
        assert reports == []
        assert "the stuck report failed; the drain goes on" in captured.text
        report = drainer.report()
        assert (report.completed, report.cancelled) == (1, 1)
        assert report.elapsed >= 20


# What it says


async def begin(tasks: Any, scope: dict[str, Any], *messages: Any) -> tuple[Call, DrainRunner]:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["route"] = type("Route", (), {"path": "/reports/{id}"})()
        for message in messages:
            await send({**message})
        await anyio.sleep_forever()  # here

    drainer = DrainRunner(LONG, clock=virtual_clock())
    call = Call(GracefulMiddleware(app, drainer=as_drainer(drainer)), scope)
    tasks.start_soon(call.run)
    await anyio.wait_all_tasks_blocked()
    return call, drainer


@pytest.mark.anyio
@pytest.mark.parametrize("pieces", [0, 3])
async def test_a_request_is_told_of_with_its_route_client_and_what_it_has_sent(pieces: int) -> None:
    piece = {**END, "body": b"12345", "more_body": True}
    messages = [OK, *[piece] * pieces] if pieces else []
    async with anyio.create_task_group() as tasks:
        _, drainer = await begin(tasks, http_scope("/reports/7"), *messages)
        (work,) = drainer.stuck.look("hard deadline").works
        tasks.cancel_scope.cancel()
    assert (work.method, work.path, work.route) == ("GET", "/reports/7", "/reports/{id}")
    assert work.client == "127.0.0.1:50000"
    assert work.sent == pieces * 5
    assert work.phase == ("response started" if pieces else "response not started")


@pytest.mark.anyio
async def test_the_last_piece_counts_while_a_slow_reader_keeps_it() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**OK})
        await send({**END, "body": b"12345"})

    class Slow(Call):
        async def send(self, message: Any) -> None:
            if message["type"] == "http.response.body":
                await anyio.sleep_forever()

    drainer = DrainRunner(LONG, clock=virtual_clock())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            Slow(GracefulMiddleware(app, drainer=as_drainer(drainer)), http_scope()).run
        )
        await anyio.wait_all_tasks_blocked()
        (work,) = drainer.stuck.look("grace period").works
        tasks.cancel_scope.cancel()
    assert (work.phase, work.sent) == ("response started", 5)


@pytest.mark.anyio
async def test_the_route_of_a_mounted_app_has_what_it_is_mounted_at() -> None:
    mounted: dict[str, Any] = {"root_path": "/proxied/api/v1", "app_root_path": "/proxied"}
    async with anyio.create_task_group() as tasks:
        _, drainer = await begin(tasks, http_scope("/proxied/api/v1/reports/7", **mounted))
        (work,) = drainer.stuck.look("grace period").works
        tasks.cancel_scope.cancel()
    assert work.route == "/api/v1/reports/{id}"


@pytest.mark.anyio
async def test_a_websocket_is_told_of_without_a_count_of_bytes() -> None:
    async with anyio.create_task_group() as tasks:
        scope = websocket_scope("/ws", client=None)
        _, drainer = await begin(tasks, scope, {"type": "websocket.accept"})
        (work,) = drainer.stuck.look("grace period").works
        tasks.cancel_scope.cancel()
    assert (work.kind, work.phase, work.client, work.sent) == ("websocket", "open", "", None)


def text_of(drainer: DrainRunner) -> str:
    return "\n".join(drainer.stuck.look("hard deadline").lines())


@pytest.mark.anyio
async def test_no_path_or_route_can_add_a_line_to_it() -> None:
    async with anyio.create_task_group() as tasks:
        scope = http_scope("/a\nERROR: forged\x1b[31m", root_path="/x\ny", app_root_path="")
        _, drainer = await begin(tasks, scope)
        text = text_of(drainer)
        tasks.cancel_scope.cancel()
    assert r"/a\nERROR: forged\x1b[31m" in text
    assert r"/x\ny/reports/{id}" in text


@pytest.mark.parametrize("count", [MOST_STUCK, MOST_STUCK + 980])
def test_of_very_much_work_the_oldest_is_told_of_and_the_rest_counted(count: int) -> None:
    clock = ManualClock()
    drainer = DrainRunner(LONG, clock=clock)
    for number in range(count):
        drainer.track(str(number)).__enter__()
        clock.move(1)
    report = drainer.stuck.look("hard deadline")
    assert [work.path for work in report.works] == [str(number) for number in range(MOST_STUCK)]
    assert report.figures()["more"] == count - MOST_STUCK
    assert (f"stuck: {count - MOST_STUCK} more" in text_of(drainer)) == (count > MOST_STUCK)


@pytest.mark.anyio
async def test_of_very_much_work_only_the_oldest_is_looked_at_closely(
    anyio_backend_name: str,
) -> None:
    """The work has to unwind in the seconds that all of the stacks would take."""
    clock = ManualClock()
    drainer = DrainRunner(LONG, clock=clock)

    async def work(name: str) -> None:
        with drainer.track(name):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        for number in range(MOST_STUCK + 5):
            tasks.start_soon(work, str(number))
            await anyio.wait_all_tasks_blocked()
            clock.move(1)
        drainer.begin("test")
        await drainer.record.note_stuck(drainer.state, drainer.in_flight, drainer.now())
        tasks.cancel_scope.cancel()
    stuck = sorted(drainer.report().stuck, key=lambda work: int(work.path))
    assert len(stuck) == MOST_STUCK + 5
    known = anyio_backend_name == "asyncio"  # elsewhere work has no task to look at
    assert [bool(work.where) for work in stuck] == [known] * MOST_STUCK + [False] * 5


@pytest.mark.anyio
async def test_it_is_plain_enough_for_a_json_formatter() -> None:
    async with anyio.create_task_group() as tasks:
        _, drainer = await begin(tasks, http_scope("/reports/7"))
        drainer.loop_monitor = LoopMonitor(drainer.now)
        await anyio.sleep(3)
        figures = drainer.stuck.look("grace period").figures()
        tasks.cancel_scope.cancel()
    figures = json.loads(json.dumps(figures))
    assert figures["stuck"][0]["route"] == "/reports/{id}"
    assert figures["loop_blocked"]["seconds"] == 3


# A blocked loop


@pytest.fixture
def blocked() -> Iterator[tuple[DrainRunner, ManualClock]]:
    """A drainer whose loop's thread is blocked, and its clock."""
    inside, release = threading.Event(), threading.Event()
    clock = ManualClock()
    drainer = DrainRunner(LONG, clock=clock)

    def block() -> None:
        drainer.loop_monitor = LoopMonitor(clock)
        inside.set()
        release.wait(PATIENCE)  # blocked here

    thread = threading.Thread(target=block)
    thread.start()
    assert inside.wait(PATIENCE)
    yield drainer, clock
    release.set()
    thread.join()


def test_a_blocked_loop_is_reported_by_who_looks_after_it_once_and_no_sooner_than_due(
    blocked: tuple[DrainRunner, ManualClock], captured: pytest.LogCaptureFixture
) -> None:
    drainer, clock = blocked
    drainer.stop("SIGTERM")
    clock.move(18.9)
    drainer.stuck.report_if_blocked()
    assert "still in flight" not in captured.text
    clock.move(0.2)
    drainer.stuck.report_if_blocked()
    drainer.stuck.report_if_blocked()
    (record,) = (record for record in captured.records if "still in flight" in record.getMessage())
    said: Any = record
    assert extras(said)["loop_blocked"]["seconds"] == pytest.approx(19.1)
    assert extras(said)["loop_blocked"]["at_least"] is True
    assert os.path.basename(__file__) in extras(said)["loop_blocked"]["where"]
    assert extras(said)["loop_blocked"]["where"].endswith("in block")
    assert "event loop blocked for at least 19.1 s at " in record.getMessage()


def test_since_when_a_loop_is_blocked_is_known_from_its_last_sign_of_life(
    blocked: tuple[DrainRunner, ManualClock],
) -> None:
    drainer, clock = blocked
    assert drainer.loop_monitor is not None
    drainer.stop("SIGTERM")
    clock.move(15.8)
    drainer.loop_monitor.beat()
    clock.move(3.2)
    found = drainer.stuck.look("hard deadline").blocked
    assert found is not None
    assert str(found).startswith("event loop blocked for 3.2 s at ")


def test_a_loop_that_goes_on_reports_for_itself(
    blocked: tuple[DrainRunner, ManualClock], captured: pytest.LogCaptureFixture
) -> None:
    drainer, clock = blocked
    assert drainer.loop_monitor is not None
    drainer.stop("SIGTERM")
    clock.move(19.5)
    drainer.loop_monitor.beat()
    clock.move(SILENCE / 2)
    drainer.stuck.report_if_blocked()
    assert "still in flight" not in captured.text


def test_nobody_looks_after_a_drain_that_no_longer_waits() -> None:
    drainer = DrainRunner(LONG, clock=ManualClock())
    assert math.isinf(drainer.stuck.due())
    drainer.begin("test")
    assert math.isinf(drainer.stuck.due())


def test_its_head_names_what_began_the_drain_and_what_has_pushed_it_on() -> None:
    clock = ManualClock()
    drainer = DrainRunner(LONG, clock=clock)
    drainer.begin("drain endpoint")
    clock.move(60)
    begun = drainer.stuck.look("hard deadline")
    assert begun.head.startswith("hard deadline: 60.0 s after drain endpoint the process")
    drainer.stop("SIGTERM")
    early = drainer.stuck.look("grace period")
    assert "until work is cancelled (SIGTERM after drain endpoint)" in early.head
    clock.move(3)
    last = drainer.stuck.look("hard deadline")
    assert last.head.startswith(
        "hard deadline: 63.0 s after drain endpoint, ended by SIGTERM, the process ends now, 0"
    )
    assert (last.figures()["stopped_by"], last.figures()["cut_short"]) == ("SIGTERM", False)
    drainer.abort()
    cut = drainer.stuck.look("hard deadline")
    assert "the process ends now: the grace period was cut short, 0 still in flight" in cut.head
    assert cut.figures()["cut_short"] is True


@pytest.mark.anyio
async def test_its_head_calls_no_grace_period_cut_short_that_has_passed() -> None:
    async with drain(DrainPolicy(lame_duck_period=0, grace_period=1), 5) as (drainer, _):
        assert drainer.report().cancelled == 1
        assert "cut short" not in drainer.stuck.look("hard deadline").head
