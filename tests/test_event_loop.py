"""What asyncio and trio do differently: calling in from outside, the clock, a wait cut short."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from support.polling import PATIENCE

from graceful_asgi.event_loop import (
    Interrupted,
    Interruptible,
    Wakeup,
    run_soon,
    running_clock,
    spawn,
)


@pytest.mark.anyio
async def test_a_function_given_from_another_thread_is_called_by_the_loop() -> None:
    soon = run_soon()
    called_in: list[int] = []
    called = anyio.Event()

    def call() -> None:
        called_in.append(threading.get_ident())
        called.set()

    thread = threading.Thread(target=soon, args=(call,))
    thread.start()
    with anyio.fail_after(PATIENCE):
        await called.wait()
    thread.join()
    assert called_in == [threading.get_ident()]


@pytest.mark.anyio
async def test_the_clock_is_that_of_the_loop() -> None:
    clock = running_clock()
    assert clock() == pytest.approx(anyio.current_time(), abs=1)
    assert await anyio.to_thread.run_sync(clock) == pytest.approx(
        anyio.current_time(), abs=PATIENCE
    )


def test_outside_of_a_loop_the_clock_is_the_monotonic_one() -> None:
    assert running_clock()() == pytest.approx(time.monotonic(), abs=1)


# Listening


@pytest.mark.anyio
async def test_a_listener_waits_no_longer_than_it_was_told() -> None:
    began = anyio.current_time()
    await Wakeup().wait(0.02)
    assert 0.015 <= anyio.current_time() - began < PATIENCE


@pytest.mark.anyio
async def test_a_listener_is_woken_from_another_thread() -> None:
    listener = Wakeup()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, listener.wake)
        with anyio.fail_after(PATIENCE):
            await listener.wait(float("inf"))


@pytest.mark.anyio
async def test_a_call_before_the_wait_is_not_missed() -> None:
    """Register first, look second, wait last: what happens before the wait ends it."""
    listener = Wakeup()
    listener.wake()
    with anyio.fail_after(PATIENCE):
        await listener.wait(float("inf"))


@pytest.mark.anyio
async def test_two_calls_wake_once_and_the_next_wait_waits_again() -> None:
    listener = Wakeup()
    listener.wake()
    listener.wake()
    await anyio.sleep(0.01)  # long past the calls: both have been taken in
    with anyio.fail_after(PATIENCE):
        await listener.wait(float("inf"))
    with anyio.move_on_after(0.02) as waited:
        await listener.wait(float("inf"))
    assert waited.cancelled_caught


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_waking_a_listener_whose_loop_has_gone_does_nothing(backend: str) -> None:
    async def listen() -> Wakeup:
        return Wakeup()

    listener = anyio.run(listen, backend=backend)
    listener.wake()


@pytest.mark.anyio
async def test_a_signal_handler_that_interrupts_the_loop_sees_the_clock_of_the_loop() -> None:
    times: list[float] = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: times.append(running_clock()()))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert times == [pytest.approx(anyio.current_time(), abs=1)]


# A wait that somebody else may interrupt


class Waiter:
    """A task that waits for one event after another, and keeps what became of it."""

    def __init__(self, *events: anyio.Event) -> None:
        self.wait = Interruptible()
        self.outcome = ""
        self.over = anyio.Event()
        self._events = events

    async def _all(self) -> str:
        for event in self._events:
            await event.wait()
        return "came"

    async def run(self) -> None:
        try:
            self.outcome = await self.wait.wait(self._all())
        except Interrupted:
            self.outcome = "interrupted"
            await anyio.lowlevel.checkpoint()  # whoever was interrupted goes on like any other task
        except BaseException as exc:
            self.outcome = type(exc).__name__
            raise
        finally:
            self.over.set()


@pytest.mark.anyio
async def test_a_wait_that_nobody_interrupts_is_a_wait_like_any_other() -> None:
    event = anyio.Event()
    waiter = Waiter(event)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        assert waiter.wait.waiting
        event.set()
    assert waiter.outcome == "came"
    assert not waiter.wait.waiting


@pytest.mark.anyio
async def test_an_interrupted_wait_ends_at_once_and_its_task_goes_on() -> None:
    waiter = Waiter(anyio.Event())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        waiter.wait.interrupt()
        waiter.wait.interrupt()
        with anyio.fail_after(PATIENCE):
            await waiter.over.wait()
    assert waiter.outcome == "interrupted"


@pytest.mark.anyio
async def test_an_interruption_that_is_too_late_loses_nothing() -> None:
    """What the task waits for has come: it has been woken, and has not run yet."""
    event = anyio.Event()
    waiter = Waiter(event)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        event.set()
        waiter.wait.interrupt()
    assert waiter.outcome == "came"


@pytest.mark.anyio
async def test_an_interruption_between_two_waits_ends_the_second() -> None:
    first = anyio.Event()
    waiter = Waiter(first, anyio.Event())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        first.set()
        waiter.wait.interrupt()
        with anyio.fail_after(PATIENCE):
            await waiter.over.wait()
    assert waiter.outcome == "interrupted"


@pytest.mark.anyio
async def test_an_interruption_of_nothing_does_not_end_the_next_wait() -> None:
    waiter = Waiter(event := anyio.Event())
    waiter.wait.interrupt()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        event.set()
    assert waiter.outcome == "came"


@pytest.mark.anyio
async def test_a_wait_that_raises_raises() -> None:
    async def fails() -> None:
        await anyio.lowlevel.checkpoint()
        raise LookupError("as asked")

    with pytest.raises(LookupError, match="as asked"):
        await Interruptible().wait(fails())


@pytest.mark.anyio
async def test_a_cancellation_while_waiting_is_passed_on() -> None:
    waiter = Waiter(anyio.Event())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert waiter.outcome == anyio.get_cancelled_exc_class().__name__


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("first", ["interruption", "cancellation"])
async def test_a_cancellation_beside_an_interruption_is_passed_on(first: str) -> None:
    if not hasattr(asyncio.Task, "uncancel"):
        pytest.skip("Python 3.10 does not count cancellations")
    waiter = Waiter(anyio.Event())
    task = asyncio.ensure_future(waiter.run())
    await anyio.wait_all_tasks_blocked()
    if first == "interruption":
        waiter.wait.interrupt()
    task.cancel()
    waiter.wait.interrupt()
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.cancelled()
    assert waiter.outcome == "CancelledError"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_the_task_has_swallowed_before_does_not_count() -> None:
    waiter = Waiter(anyio.Event())

    async def run() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            await waiter.run()

    task = asyncio.ensure_future(run())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await anyio.wait_all_tasks_blocked()
    waiter.wait.interrupt()
    await asyncio.wait([task], timeout=PATIENCE)
    assert waiter.outcome == "interrupted"


# Beside everything else


@pytest.mark.anyio
async def test_what_is_spawned_runs_beside_the_task_that_spawns_it() -> None:
    ran = anyio.Event()

    async def run() -> None:
        ran.set()

    assert spawn(run) is not None
    with anyio.fail_after(PATIENCE):
        await ran.wait()


def test_outside_of_a_loop_nothing_is_spawned() -> None:
    async def run() -> None:
        raise AssertionError("ran")

    assert spawn(run) is None
