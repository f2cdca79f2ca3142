"""Differences between asyncio and trio: calls from other threads, the clock; and sharing a loop."""

from __future__ import annotations

import signal
import threading
import time

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from support.polling import PATIENCE

from graceful_asgi.event_loop import (
    Wakeup,
    in_slices,
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
    await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()  # both calls have been taken in
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


@pytest.mark.anyio
async def test_in_slices_everything_else_runs_between_two_of_them() -> None:
    turns = [""]

    async def others() -> None:
        while True:
            turns.append("")
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        async for number in in_slices(range(30), 3):
            turns[-1] += f"{number} "
        tasks.cancel_scope.cancel()
    assert "".join(turns).split() == [str(number) for number in range(30)]
    assert max(len(turn.split()) for turn in turns) <= 6, "trio may run them in either order"
