"""The registry: whatever happens to a piece of work, the count is right, and cancelling works."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from support.asgi import (
    END,
    OK,
    Call,
    Send,
    answer,
    hangs_after,
    http_scope,
    serving,
    with_lifespan,
)
from support.command import run_python
from support.polling import PATIENCE

from graceful_asgi import DrainPolicy, GracefulMiddleware, Phase
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._core.work import InFlight, Work
from graceful_asgi.event_loop import SLICE

if TYPE_CHECKING:
    from support.asgi import App, Message, Receive

PATIENT = DrainPolicy(lame_duck_period=60, grace_period=60)


class Boom(Exception):
    pass


async def not_awaited_yet(event: anyio.Event) -> None:
    with anyio.fail_after(PATIENCE):
        await event.wait()


# Counting


def never_starts() -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        return None

    return app


def starts_twice() -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**OK})
        await send({**OK})
        await send({**END})

    return app


def raises_before_the_start() -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise Boom

    return app


def raises_after_the_start() -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**OK})
        raise Boom

    return app


@pytest.mark.anyio
@pytest.mark.parametrize(
    "app", [never_starts(), starts_twice(), raises_before_the_start(), raises_after_the_start()]
)
@pytest.mark.parametrize("draining", [False, True])
async def test_the_count_is_zero_after_an_app_that_breaks_asgi(app: App, draining: bool) -> None:
    drainer = DrainRunner(PATIENT)
    async with serving(
        GracefulMiddleware(with_lifespan(app), drainer=as_drainer(drainer))
    ) as server:
        if draining:
            drainer.begin("test")
        await server.get()
    assert drainer.statistics().in_flight == 0
    assert drainer.report().completed == draining


@pytest.mark.anyio
async def test_a_server_that_refuses_a_message_leaves_the_count_at_zero() -> None:
    drainer = DrainRunner(PATIENT)
    call = Call(GracefulMiddleware(answer, drainer=as_drainer(drainer)), http_scope())

    async def refuse(message: Message) -> None:
        raise RuntimeError("the client has gone")

    with pytest.raises(RuntimeError, match="the client has gone"):
        await GracefulMiddleware(answer, drainer=as_drainer(drainer))(
            http_scope(), call.receive, refuse
        )
    assert drainer.statistics().in_flight == 0


@pytest.mark.anyio
async def test_the_count_is_zero_after_the_server_has_cancelled_the_call() -> None:
    drainer = DrainRunner(PATIENT)
    call = Call(GracefulMiddleware(waits_for_its_client, drainer=as_drainer(drainer)), http_scope())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await not_awaited_yet(call.running)
        assert drainer.statistics().in_flight == 1
        tasks.cancel_scope.cancel()
    assert drainer.statistics().in_flight == 0


async def waits_for_its_client(scope: Any, receive: Receive, send: Send) -> None:
    await receive()


@pytest.mark.anyio
async def test_work_is_in_flight_until_the_app_returns_background_tasks_included() -> None:
    drainer = DrainRunner(PATIENT)
    release = anyio.Event()

    async def goes_on_after_its_answer(scope: Any, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)
        await receive()
        await release.wait()

    app = GracefulMiddleware(goes_on_after_its_answer, drainer=as_drainer(drainer))
    call = Call(app, http_scope(), {"type": "http.disconnect"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await not_awaited_yet(call.running)
        assert drainer.statistics().in_flight == 1
        release.set()
    assert drainer.statistics().in_flight == 0


@pytest.mark.anyio
async def test_tracked_work_is_counted_for_the_length_of_its_block() -> None:
    drainer = DrainRunner(PATIENT)
    with drainer.track("export"):
        assert drainer.statistics().in_flight == 1
        with drainer.track("upload"):
            assert drainer.statistics().in_flight == 2
        assert drainer.statistics().in_flight == 1
    assert drainer.statistics().in_flight == 0


@pytest.mark.anyio
async def test_an_error_in_tracked_work_is_passed_on_and_not_counted_for_ever() -> None:
    drainer = DrainRunner(PATIENT)
    with pytest.raises(Boom), drainer.track("export"):
        raise Boom
    assert drainer.statistics().in_flight == 0


@pytest.mark.anyio
async def test_the_oldest_work_is_named_with_its_kind_and_its_age() -> None:
    drainer = DrainRunner(PATIENT)
    with drainer.track("first"):
        await anyio.sleep(0.01)
        with drainer.track("second"):
            oldest = drainer.statistics().oldest
    assert oldest is not None
    assert (oldest.kind, oldest.method, oldest.path) == ("task", "", "first")
    assert oldest.phase == "running"
    assert oldest.age >= 0.01
    assert drainer.statistics().oldest is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ticks", "draining", "age"),
    [(False, False, 3.0), (True, False, 3.0625), (True, True, 3.0)],
    ids=["no tick", "tick", "tick, draining"],
)
async def test_a_request_is_never_younger_than_it_says(
    ticks: bool, draining: bool, age: float
) -> None:
    """While serving, it counts from the tick before it. While draining, its time is exact."""
    now = 10.0
    drainer = DrainRunner(PATIENT, clock=lambda: now)
    async with serving(graceful_with(drainer, hangs_after())) as server:
        if ticks:
            drainer.in_flight.tick()
        now += 0.0625
        if draining:
            drainer.begin("test")
        await server.begin(http_scope())
        now += 3.0
        oldest = drainer.statistics().oldest
    assert oldest is not None
    assert oldest.age == age


@pytest.mark.anyio
async def test_a_drainer_does_not_count_from_the_ticks_of_the_server_before() -> None:
    now = 10.0
    drainer = DrainRunner(PATIENT, clock=lambda: now)
    app = graceful_with(drainer, hangs_after())
    async with serving(app):
        drainer.in_flight.tick()
    now += 3600.0
    async with serving(app) as server:
        await server.begin(http_scope())
        oldest = drainer.statistics().oldest
    assert oldest is not None
    assert oldest.age == 0.0


def graceful_with(drainer: DrainRunner, app: App) -> GracefulMiddleware:
    return GracefulMiddleware(with_lifespan(app), drainer=as_drainer(drainer))


def test_tracked_work_in_a_plain_thread_counts_and_cannot_be_cancelled() -> None:
    drainer = DrainRunner(PATIENT)
    inside, release = threading.Event(), threading.Event()
    outcome: list[str] = []

    def export() -> None:
        with drainer.track("export"):
            inside.set()
            release.wait(PATIENCE)
            outcome.append("ran to its end")

    thread = threading.Thread(target=export)
    thread.start()
    assert inside.wait(PATIENCE)
    assert drainer.statistics().in_flight == 1
    drainer.begin("test")
    assert drainer.abort()
    release.set()
    thread.join(PATIENCE)
    assert outcome == ["ran to its end"]
    assert drainer.statistics().in_flight == 0


@pytest.mark.anyio
async def test_tracked_work_in_a_worker_thread_counts() -> None:
    drainer = DrainRunner(PATIENT)

    def count() -> int:
        with drainer.track("export"):
            return drainer.statistics().in_flight

    assert await anyio.to_thread.run_sync(count) == 1
    assert drainer.statistics().in_flight == 0


# Cancelling


class Worker:
    """A task that tracks its work, and tells what has become of it."""

    def __init__(self, drainer: DrainRunner) -> None:
        self.inside = anyio.Event()
        self.over = anyio.Event()
        self.outcome = ""
        self._drainer = drainer

    async def work(self) -> None:
        try:
            with self._drainer.track("export"):
                self.inside.set()
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    self.outcome = "cancelled"
                    raise
            self.outcome += ", went on"  # where only the block is cancelled
        except asyncio.CancelledError:
            self.outcome += ", left"  # where the task is; it ends here
        finally:
            self.over.set()


@pytest.mark.anyio
async def test_tracked_work_is_cancelled_the_task_on_asyncio_the_block_on_trio(
    anyio_backend_name: str,
) -> None:
    drainer = DrainRunner(PATIENT)
    worker = Worker(drainer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.work)
        await not_awaited_yet(worker.inside)
        drainer.begin("test")
        assert drainer.abort()
        await not_awaited_yet(worker.over)
    expected = {"asyncio": "cancelled, left", "trio": "cancelled, went on"}
    assert worker.outcome == expected[anyio_backend_name]
    assert drainer.statistics().in_flight == 0
    assert drainer.report().cancelled == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_work_is_cancelled_from_another_thread_at_once_though_its_loop_sleeps(backend: str) -> None:
    """`abort` says so: the control socket and a signal handler call it from where they are.

    In a process of its own: a loop that is tampered with from outside may never end.
    """
    ended = run_python(
        f"""
        import threading, time
        import anyio
        from graceful_asgi import DrainPolicy
        from graceful_asgi._core.runner import DrainRunner

        drainer = DrainRunner(DrainPolicy())
        inside = threading.Event()

        def abort():
            inside.wait()
            time.sleep(0.2)  # by now the loop sleeps
            drainer.begin("test")
            drainer.abort()

        async def main():
            began = time.monotonic()
            try:
                with anyio.move_on_after(15), drainer.track("export"):
                    inside.set()
                    await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                pass
            print("at once" if time.monotonic() - began < 12 else "late")

        threading.Thread(target=abort).start()
        anyio.run(main, backend={backend!r})
        """
    )
    assert ended.stdout.split("\n")[0] == "at once", ended.stderr


@pytest.mark.anyio
async def test_a_request_that_tracks_a_part_of_itself_is_cancelled_once() -> None:
    """Cancelled twice, it could not even answer its 503."""
    drainer = DrainRunner(PATIENT)
    cancellations: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            with drainer.track("outer"), drainer.track("inner"):
                await receive()
        except anyio.get_cancelled_exc_class():
            cancellations.append("request")
            raise
        await anyio.lowlevel.checkpoint()

    call = Call(GracefulMiddleware(app, drainer=as_drainer(drainer)), http_scope())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await not_awaited_yet(call.running)
        assert drainer.statistics().in_flight == 3
        drainer.begin("test")
        drainer.abort()
        await not_awaited_yet(call.over)
    assert call.status == 503
    assert call.error is None
    assert cancellations == ["request"] or not cancellations
    assert drainer.statistics().in_flight == 0


@pytest.mark.anyio
async def test_a_request_is_cancelled_though_a_part_of_it_ends_in_that_moment() -> None:
    """Whichever of the works that share a task the cancelling picks: the request is cancelled."""
    drainer = DrainRunner(PATIENT)
    end_of_part = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        with drainer.track("a part"):
            await send({"type": "test.inside"})
            await end_of_part.wait()
        await receive()

    calls = [
        Call(GracefulMiddleware(app, drainer=as_drainer(drainer)), http_scope()) for _ in range(20)
    ]
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(call.run)
        for call in calls:
            await not_awaited_yet(call.running)
        await anyio.wait_all_tasks_blocked()
        drainer.begin("test")
        end_of_part.set()
        drainer.abort()
        with anyio.move_on_after(PATIENCE):
            for call in calls:
                await call.over.wait()
        left = drainer.statistics().in_flight
        tasks.cancel_scope.cancel()
    assert left == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_task_whose_work_ends_in_that_moment_is_not_cancelled() -> None:
    """It is about its owner's business by then."""
    drainer = DrainRunner(PATIENT)
    inside, end_of_work = asyncio.Event(), asyncio.Event()

    async def export() -> str:
        with drainer.track("export"):
            inside.set()
            await end_of_work.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        return "went on"

    task = asyncio.ensure_future(export())
    await inside.wait()
    await asyncio.sleep(0)
    drainer.begin("test")
    end_of_work.set()
    drainer.abort()
    await asyncio.wait([task], timeout=PATIENCE)
    assert not task.cancelled()
    assert task.result() == "went on"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_tracked_work_belongs_to_the_task_that_enters_the_block() -> None:
    """A tracker made at startup and entered in the background must not cancel the startup."""
    drainer = DrainRunner(PATIENT)
    tracker = drainer.track("export")
    inside = asyncio.Event()

    async def export() -> None:
        with tracker:
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(export())
    await inside.wait()
    drainer.begin("test")
    drainer.abort()
    try:
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
    except asyncio.CancelledError:
        pytest.fail("the task that only made the tracker was cancelled")
    finally:
        task.cancel()
    assert done


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_work_in_a_thread_is_not_taken_for_the_task_that_runs_meanwhile() -> None:
    drainer = DrainRunner(PATIENT)
    inside, release = threading.Event(), threading.Event()

    def export() -> None:
        with drainer.track("export"):
            inside.set()
            release.wait(PATIENCE)

    async def bystander() -> None:
        thread = threading.Thread(target=export)
        thread.start()
        inside.wait(PATIENCE)  # this task runs while the thread says what it does
        try:
            drainer.begin("test")
            drainer.abort()
            await asyncio.sleep(0.01)
        finally:
            release.set()
            thread.join()

    async with serving(GracefulMiddleware(with_lifespan(answer), drainer=as_drainer(drainer))):
        await asyncio.wait_for(asyncio.ensure_future(bystander()), PATIENCE)
    assert drainer.phase is Phase.CANCELLING


@pytest.mark.anyio
async def test_tracked_work_on_a_loop_of_another_thread_is_cancelled_there() -> None:
    drainer = DrainRunner(PATIENT)
    inside = threading.Event()
    ended: list[str] = []

    async def export() -> None:
        try:
            with drainer.track("export"):
                inside.set()
                await asyncio.wait_for(asyncio.Event().wait(), PATIENCE)
        except (asyncio.CancelledError, asyncio.TimeoutError) as exc:
            ended.append(type(exc).__name__)

    async with serving(GracefulMiddleware(with_lifespan(answer), drainer=as_drainer(drainer))):
        thread = threading.Thread(target=lambda: asyncio.run(export()))
        thread.start()
        await anyio.to_thread.run_sync(inside.wait)
        drainer.begin("test")
        drainer.abort()
        await anyio.to_thread.run_sync(thread.join)
    assert ended == ["CancelledError"]


def test_work_left_behind_on_a_closed_loop_does_not_shield_the_rest() -> None:
    """Nothing runs it any more: it cannot be cancelled, and must not keep others from being."""
    ended = run_python(
        """
        import asyncio, os, threading
        from graceful_asgi import DrainPolicy
        from graceful_asgi._core.runner import DrainRunner

        drainer = DrainRunner(DrainPolicy())

        async def export():
            with drainer.track("export"):
                await asyncio.Event().wait()

        left = []

        def leave_work_behind():
            loop = asyncio.new_event_loop()
            left.extend(loop.create_task(export()) for _ in range(8))
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        async def main():
            await asyncio.to_thread(leave_work_behind)
            task = asyncio.ensure_future(export())
            await asyncio.sleep(0)
            drainer.begin("test")
            drainer.abort()
            done, _ = await asyncio.wait([task], timeout=10)
            print("cancelled" if done else "not cancelled", flush=True)
            os._exit(0)

        asyncio.run(main())
        """
    )
    assert ended.stdout == "cancelled\n", ended.stderr


@pytest.mark.anyio
async def test_work_that_is_tracked_after_the_rest_was_cancelled_is_cancelled_too() -> None:
    drainer = DrainRunner(PATIENT)
    drainer.begin("test")
    drainer.abort()
    ended = anyio.Event()

    async def export() -> None:
        try:
            with drainer.track("late"):
                await anyio.sleep_forever()
        finally:
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(export)
        with anyio.fail_after(PATIENCE):
            await ended.wait()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_thousand_tasks_are_cancelled_a_slice_in_each_turn_of_the_loop() -> None:
    """Cancelled all at once they would unwind all at once, and hold the loop for seconds."""
    runner = DrainRunner(PATIENT)
    turns = [0]
    unwound_in: list[int] = []
    loop = asyncio.get_running_loop()

    def count_turns() -> None:
        turns[0] += 1
        if len(unwound_in) < 1000:
            loop.call_soon(count_turns)

    async def export() -> None:
        try:
            with runner.track("export"):
                await asyncio.Event().wait()
        finally:
            unwound_in.append(turns[0])

    tasks = [asyncio.ensure_future(export()) for _ in range(1000)]
    await asyncio.sleep(0)
    count_turns()
    runner.begin("test")
    runner.abort()
    await asyncio.wait(tasks, timeout=PATIENCE)
    assert all(task.cancelled() for task in tasks)
    assert max(Counter(unwound_in).values()) == SLICE
    assert max(unwound_in) - min(unwound_in) < 2 * 1000 / SLICE, "in a row, too"


class Cancelled(Work):
    """Work of no task. It ends as it is cancelled."""

    def __init__(self, in_flight: InFlight, calls: deque[Any]) -> None:
        self._in_flight, self._calls = in_flight, calls
        in_flight.enter(self)

    def cancellable(self) -> Any:
        return self, self._calls.append

    def cancel(self) -> None:
        self._in_flight.leave(self)


def seconds_to_cancel(count: int) -> float:
    """Return the time of this thread that it takes to cancel so many pieces of work."""
    calls: deque[Any] = deque()
    in_flight = InFlight(time.monotonic)
    for _ in range(count):
        Cancelled(in_flight, calls)
    gc.disable()  # it would look through all that other tests have left
    try:
        before = time.thread_time()
        in_flight.cancel()
        while calls:
            calls.popleft()()
        assert not in_flight
        return time.thread_time() - before
    finally:
        gc.enable()


def test_to_cancel_eight_times_as_many_takes_eight_times_as_long() -> None:
    """If each looked through all of them, it would take 64 times as long."""
    few, many = (min(seconds_to_cancel(n) for _ in range(5)) for n in (1000, 8000))
    assert many < 24 * few
