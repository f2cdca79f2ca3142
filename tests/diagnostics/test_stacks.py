"""Where code stands: above all, the line of the app that work waits at."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from support.polling import PATIENCE, eventually

import graceful_asgi
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._diagnostics.await_chain import await_chain
from graceful_asgi._diagnostics.stacks import (
    compressed,
    frames_of,
    innermost,
    thread_frames,
    thread_name,
    thread_stacks,
    where,
    working_thread,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator

    from graceful_asgi.report import ThreadStack


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
    drainer = DrainRunner()
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
    drainer = DrainRunner()
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
    drainer = DrainRunner()

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
    package = Path(inspect.getfile(graceful_asgi)).parent
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


def test_every_other_thread_is_shown_with_the_lines_of_the_app_and_their_source(
    blocked: tuple[Blocked, Any],
) -> None:
    shown: list[ThreadStack] = []
    thread = threading.Thread(target=lambda: shown.extend(thread_stacks()), name="who asks")
    thread.start()
    thread.join()
    (main,) = (stack for stack in shown if stack.name == "main thread")
    assert any("test_every_other_thread_is_shown" in line for line in main.lines)
    (blocks,) = (stack for stack in shown if any("in blocks" in line for line in stack.lines))
    *_, line, library = blocks.lines
    assert line == f"{line_of(Blocked.blocks, 'here')}: self.release.wait(PATIENCE)  # here"
    assert library == "(2 calls in threading)"
    assert not any(stack.name == "who asks" for stack in shown)


def test_a_thread_without_a_line_of_the_app_is_shown_with_that_of_a_library() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="idle")
    thread.start()
    (idle,) = (stack for stack in thread_stacks() if stack.name == "idle")
    ended.set()
    thread.join()
    (line,) = idle.lines
    assert "threading.py" in line


def test_threads_of_this_package_are_left_out() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="graceful_asgi test")
    thread.start()
    shown = {stack.name for stack in thread_stacks()}
    ended.set()
    thread.join()
    assert "graceful_asgi test" not in shown


# Tasks and threads that work waits for


async def in_a_task_of_a_group() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.start_soon(waits_in_anyio)


async def in_a_task_that_is_awaited() -> None:
    await asyncio.ensure_future(waits_in_a_library())


async def in_a_gather() -> None:
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    await asyncio.gather(done, waits_in_a_library())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("waiting", "named"),
    [
        (in_a_task_of_a_group, waits_in_anyio),
        (in_a_task_that_is_awaited, waits_in_a_library),
        (in_a_gather, waits_in_a_library),
    ],
)
async def test_work_is_followed_into_the_tasks_that_it_waits_for(
    waiting: Callable[[], Any], named: Callable[[], Any]
) -> None:
    task = asyncio.ensure_future(waiting())
    await anyio.wait_all_tasks_blocked()
    said = where(task.get_coro())
    task.cancel()
    await asyncio.wait([task])
    assert said == line_of(named, "here")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_knows_its_own_group_is_followed_once() -> None:
    def lines() -> list[str]:
        return [line for line in compressed(frames_of(coroutine)) if "waits_in_anyio" in line]

    async def group() -> None:
        async with anyio.create_task_group() as tasks:

            async def inner() -> None:
                while tasks is not None:
                    await waits_in_anyio()

            tasks.start_soon(inner)

    task = asyncio.ensure_future(group())
    coroutine = task.get_coro()
    await anyio.wait_all_tasks_blocked()
    found = lines()
    task.cancel()
    await asyncio.wait([task])
    assert len(found) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_tasks_that_wait_for_each_other_are_followed_once_around() -> None:
    """It is what work may be stuck at, and a look that never ends would hold up its server."""

    way_out: asyncio.Future[Any]

    async def one() -> None:
        first = asyncio.current_task()
        assert first is not None

        async def other() -> None:
            nonlocal way_out
            await (way_out := asyncio.gather(first))

        await asyncio.create_task(other())

    task = asyncio.ensure_future(one())
    await anyio.wait_all_tasks_blocked()
    chain = itertools.islice(await_chain(task.get_coro()), 100)  # without an end, it takes all
    names = [frame.f_code.co_name for frame in chain]
    way_out.set_result([])  # asyncio cannot cancel such a circle: it goes around, too
    await task
    assert names == ["one", "other"]


class Proxy:
    """Stands for something else that is not there now, like the current request of a library."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} outside of a request")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_variables_of_the_app_are_not_asked_for_anything() -> None:
    async def handler(self: Proxy, worker: Proxy) -> None:
        func_call = Proxy()
        await waits_here()
        del func_call

    coroutine = handler(Proxy(), Proxy())
    coroutine.send(None)
    frames = frames_of(coroutine)
    coroutine.close()
    assert innermost(frames) == line_of(waits_here, "here")
    assert working_thread(frames) is None


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("run", [anyio.to_thread.run_sync, asyncio.to_thread])
async def test_the_thread_that_works_for_a_coroutine_is_found(run: Callable[..., Any]) -> None:
    block = Blocked()
    task = asyncio.ensure_future(run(block.blocks))
    await eventually(block.inside.is_set)
    ident = working_thread(frames_of(task.get_coro()))
    said = innermost(thread_frames(ident))
    name = thread_name(ident)
    block.release.set()
    await task
    assert said == line_of(Blocked.blocks, "here")
    assert name
    assert working_thread(frames_of(task.get_coro())) is None


def test_libraries_are_told_in_a_word_between_the_lines_of_the_app() -> None:
    loop = asyncio.new_event_loop()
    coroutine = waits_in_a_library()
    step(loop, coroutine)
    lines = list(compressed(frames_of(coroutine)))
    coroutine.close()
    loop.close()
    assert lines == [line_of(waits_in_a_library, "here"), "(1 call in asyncio)"]
