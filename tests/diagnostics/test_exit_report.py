"""The report of the exit names what keeps a process alive, and not what only waits for others."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.polling import PATIENCE, eventually

from graceful_asgi._diagnostics.exit_report import ExitReport, look_at_exit
from graceful_asgi._diagnostics.stacks import ThreadStack

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Its tasks are those of asyncio."""
    return "asyncio"


def named(name: str, loop: asyncio.AbstractEventLoop | None = None) -> list[str]:
    """Return what the report says of the thing with this name."""
    return [each for each in look_at_exit(loop).waits_for if f" {name}" in each]


def hold(release: threading.Event, reached: threading.Event) -> None:
    reached.set()
    release.wait(PATIENCE)


@pytest.mark.parametrize("daemon", [False, True])
async def test_a_thread_is_named_with_its_place_unless_the_interpreter_leaves_it(
    daemon: bool,
) -> None:
    release, reached = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=hold, args=(release, reached), name="held thread", daemon=daemon
    )
    thread.start()
    try:
        assert reached.wait(PATIENCE)
        found = named("held thread")
    finally:
        release.set()
        thread.join()
    assert len(found) == (not daemon)
    assert all("test_exit_report.py" in each and "in hold" in each for each in found)
    assert not named("held thread"), "it has ended"


async def test_a_worker_of_an_executor_is_named_while_it_works() -> None:
    release, reached = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        working = pool.submit(hold, release, reached)
        assert reached.wait(PATIENCE)
        assert len(named("pool_0")) == 1
        release.set()
        working.result(PATIENCE)
        await eventually(lambda: not named("pool_0"), "idle, it is woken by the exit itself")


async def test_the_tasks_of_the_loop_are_named_with_their_places() -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(asyncio.sleep(3600), name="sleeper")
    await asyncio.sleep(0)
    (found,) = named("sleeper", loop)
    assert " at " in found
    assert not named("sleeper"), "of no loop"
    task.cancel()
    await asyncio.wait({task})
    assert not named("sleeper", loop)


async def test_a_loop_that_is_closed_has_none() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert not [each for each in look_at_exit(loop).waits_for if each.startswith("task ")]


async def test_a_child_of_multiprocessing_is_named_with_its_pid() -> None:
    child = multiprocessing.get_context("spawn").Process(
        target=time.sleep, args=(PATIENCE,), name="sleeping child"
    )
    child.start()
    try:
        assert named("sleeping child") == [f"child process sleeping child (pid {child.pid})"]
    finally:
        child.terminate()
        child.join()
    assert not named("sleeping child")


def test_no_name_from_outside_reaches_a_terminal_unescaped() -> None:
    report = ExitReport(
        waits_for=("thread a\x1b[2J", "task b\n"),
        threads=(ThreadStack("c\x1b", ("app.py:1 in d\n",)),),
    )
    text = "\n".join([str(report), *report.lines()])
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3


def test_where_nothing_shows_that_is_said() -> None:
    assert str(ExitReport(waits_for=(), threads=())) == "nothing that shows"
