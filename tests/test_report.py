"""What is said of stuck work: above all, the line of the app that it waits at."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from helpers import PATIENCE

from graceful_asgi import Drainer, DrainReport, StuckWork
from graceful_asgi.report import await_chain, thread_stacks, where

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator


def line_of(function: Any, marker: str) -> str:
    """Return what `where` says of the line of *function* that has *marker* in a comment."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = (n for n, line in enumerate(lines) if line.rstrip().endswith(f"# {marker}"))
    return f"{__file__}:{first + offset} in {function.__name__}"


async def waits_here() -> None:
    await asyncio.sleep(0)  # here


async def calls_on() -> None:
    await waits_here()


async def waits_in_a_library() -> None:
    await asyncio.Event().wait()  # here


async def waits_in_anyio() -> None:
    await anyio.sleep_forever()  # here


@types.coroutine
def old_style() -> Generator[Any, Any, None]:
    yield from waits_here()


async def through_a_generator() -> None:
    await old_style()


async def numbers() -> AsyncIterator[int]:
    await asyncio.sleep(0)  # here
    yield 1


async def through_an_async_generator() -> None:
    async for _ in numbers():
        pass


async def through_anext() -> None:
    await anext(numbers(), 0)


async def through_asend() -> None:
    generator: Any = numbers()
    await generator.asend(None)


class Wrapper:
    """What an awaitable looks like that lends itself the coroutine of another."""

    def __await__(self) -> Generator[Any, Any, None]:
        return waits_here().__await__()


async def through_a_wrapper() -> None:
    await Wrapper()


async def in_a_child_task() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.start_soon(anyio.sleep_forever)


@pytest.mark.parametrize(
    ("waiting", "named"),
    [
        (waits_here, waits_here),
        (calls_on, waits_here),
        (waits_in_a_library, waits_in_a_library),
        (through_a_generator, waits_here),
        (through_an_async_generator, numbers),
        (through_anext, numbers),
        (through_asend, numbers),
        (through_a_wrapper, waits_here),
    ],
)
def test_suspended_work_is_at_the_innermost_line_of_the_app(
    waiting: Callable[[], Any], named: Callable[[], Any]
) -> None:
    coroutine = waiting()
    loop = asyncio.new_event_loop()
    try:
        step(loop, coroutine)
        said = where(coroutine)
    finally:
        coroutine.close()
        loop.close()
    assert said == line_of(named, "here")


def step(loop: asyncio.AbstractEventLoop, coroutine: Any) -> None:
    """Run *coroutine* up to its first wait."""
    asyncio._set_running_loop(loop)
    try:
        coroutine.send(None)
    finally:
        asyncio._set_running_loop(None)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("waiting", [waits_here, waits_in_a_library, waits_in_anyio])
async def test_the_oldest_work_is_at_the_line_of_the_app(
    waiting: Callable[[], Awaitable[None]],
) -> None:
    drainer = Drainer()
    inside = asyncio.Event()

    async def handler() -> None:
        with drainer.track("export"):
            inside.set()
            while True:
                await waiting()

    task = asyncio.ensure_future(handler())
    await inside.wait()
    oldest = drainer.statistics().oldest
    task.cancel()
    assert oldest is not None
    assert oldest.where == line_of(waiting, "here")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_work_in_a_child_task_is_at_a_line_of_the_app() -> None:
    drainer = Drainer()
    inside = asyncio.Event()

    async def handler() -> None:
        with drainer.track("export"):
            inside.set()
            await in_a_child_task()

    task = asyncio.ensure_future(handler())
    await inside.wait()
    await asyncio.sleep(0)
    oldest = drainer.statistics().oldest
    task.cancel()
    assert oldest is not None
    assert oldest.where.startswith(__file__)
    assert oldest.where.endswith("in in_a_child_task")


class Blocked:
    """A coroutine that blocks its thread, and with it the loop."""

    def __init__(self) -> None:
        self.inside, self.release = threading.Event(), threading.Event()

    async def handler(self) -> None:
        await self.calls_something_blocking()

    async def calls_something_blocking(self) -> None:
        self.blocks()

    def blocks(self) -> None:
        self.inside.set()
        self.release.wait(PATIENCE)  # here


@pytest.fixture
def blocked() -> Iterator[tuple[Blocked, Any]]:
    block = Blocked()
    coroutine = block.handler()

    def run() -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)

    thread = threading.Thread(target=run)
    thread.start()
    assert block.inside.wait(PATIENCE)
    yield block, coroutine
    block.release.set()
    thread.join()


def test_work_that_blocks_is_at_the_line_it_blocks_in(blocked: tuple[Blocked, Any]) -> None:
    block, coroutine = blocked
    assert where(coroutine) == line_of(Blocked.blocks, "here")
    assert block.inside.is_set()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_running_work_that_asks_for_itself_is_at_the_line_that_asks() -> None:
    drainer = Drainer()

    async def handler() -> str:
        with drainer.track("export"):
            oldest = drainer.statistics().oldest
            assert oldest is not None
            return oldest.where

    assert (await asyncio.ensure_future(handler())).endswith(" in handler")


def test_work_with_no_line_of_its_own_is_at_that_of_a_library() -> None:
    """An app that is installed is a library, too: better its line than none."""
    coroutine = asyncio.sleep(0)
    coroutine.send(None)
    assert "asyncio" in where(coroutine)
    coroutine.close()


def test_a_directory_that_only_begins_like_a_library_is_the_app(tmp_path: Path) -> None:
    package = Path(inspect.getfile(Drainer)).parent
    filename = str(package.with_name(package.name + "_demo") / "app.py")
    namespace: dict[str, Any] = {"Event": asyncio.Event}
    source = "async def f():\n    await Event().wait()\n"
    exec(compile(source, filename, "exec"), namespace)
    coroutine = namespace["f"]()
    loop = asyncio.new_event_loop()
    step(loop, coroutine)
    said = where(coroutine)
    coroutine.close()
    loop.close()
    assert said == f"{filename}:2 in f"


@pytest.mark.parametrize("nothing", [None, object(), 1])
def test_what_is_no_coroutine_is_nowhere(nothing: object) -> None:
    assert where(nothing) == ""
    assert list(await_chain(nothing)) == []


def test_a_coroutine_that_has_ended_is_nowhere() -> None:
    coroutine = waits_here()
    coroutine.close()
    assert where(coroutine) == ""


def test_the_chain_goes_from_the_outermost_frame_to_the_innermost() -> None:
    coroutine = through_a_generator()
    coroutine.send(None)
    names = [frame.f_code.co_name for frame in await_chain(coroutine)]
    coroutine.close()
    assert names == [
        "through_a_generator",
        "old_style",
        "waits_here",
        "sleep",
        "__sleep0",
    ]


def test_the_chain_begins_in_an_async_generator_as_well() -> None:
    generator: Any = numbers()
    first = generator.__anext__()
    first.send(None)
    names = [frame.f_code.co_name for frame in await_chain(generator)]
    with pytest.raises(GeneratorExit):
        first.throw(GeneratorExit)
    assert names == ["numbers", "sleep", "__sleep0"]


# Threads


def test_every_thread_is_shown_with_its_stack_the_main_one_by_name(
    blocked: tuple[Blocked, Any],
) -> None:
    stacks = list(thread_stacks(leave_out="nobody.py"))
    (main,) = [stack for stack in stacks if stack.startswith("main thread:\n")]
    assert "test_every_thread_is_shown" in main
    assert any("self.release.wait(PATIENCE)  # here" in stack for stack in stacks)


def test_a_thread_that_only_reports_is_left_out(blocked: tuple[Blocked, Any]) -> None:
    assert not any("main thread" in stack for stack in thread_stacks(leave_out=__file__))


# The records


def test_stuck_work_reads_as_a_sentence() -> None:
    work = StuckWork("http", "GET", "/export", 20.04, "response not started", "app.py:7 in export")
    assert str(work) == ("http GET /export for 20.0 s, response not started, at app.py:7 in export")
    task = StuckWork("task", "", "nightly export", 1.0, "running", "")
    assert str(task) == "task nightly export for 1.0 s, running"


@pytest.mark.parametrize(
    ("cancelled", "aborted", "clean"), [(0, 0, True), (1, 0, False), (0, 1, False)]
)
def test_a_report_is_clean_when_everything_in_flight_finished(
    cancelled: int, aborted: int, clean: bool
) -> None:
    make = functools.partial(DrainReport, reason="SIGTERM", completed=5, rejected=9, elapsed=1.0)
    assert make(cancelled=cancelled, aborted=aborted).clean is clean


def test_a_path_cannot_add_a_line_to_the_log() -> None:
    work = StuckWork("http", "GET", "/a\nERROR: \x1b[31mforged\u2028ü", 1.0, "response started", "")
    assert str(work) == (r"http GET /a\nERROR: \x1b[31mforged\u2028ü for 1.0 s, response started")
