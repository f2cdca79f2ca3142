"""Work is followed over tasks and threads to the line of the app that it waits at."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from support.asgi import http_scope
from support.polling import eventually

import graceful_asgi
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._diagnostics.stacks import compressed, innermost, thread_name
from graceful_asgi._diagnostics.trail import trail_of, where

from .waiting import Blocked, line_of, step, waits_here, waits_in_a_library, waits_in_anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response


@pytest.mark.anyio
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
    assert oldest.where == line_of(waiting)


async def in_a_child_task() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.start_soon(anyio.sleep_forever)


@pytest.mark.anyio
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


def test_work_that_blocks_is_at_the_line_it_blocks_in(blocked: tuple[Blocked, Any]) -> None:
    _, coroutine = blocked
    assert where(coroutine) == line_of(Blocked.blocks)


@pytest.mark.anyio
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
    package = Path(graceful_asgi.__file__).parent
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


# Tasks that work waits for


async def in_a_task_of_a_group() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.start_soon(waits_in_anyio)


async def in_a_task_of_asyncios_group() -> None:
    async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined]  # from Python 3.11 on
        tasks.create_task(asyncio.sleep(3600))
        tasks.create_task(waits_in_a_library())


async def in_a_task_that_is_awaited() -> None:
    await asyncio.ensure_future(waits_in_a_library())


async def in_a_gather() -> None:
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    await asyncio.gather(done, asyncio.sleep(3600), waits_in_a_library())


async def in_a_wait() -> None:
    tasks = [asyncio.ensure_future(each) for each in (asyncio.sleep(3600), waits_in_a_library())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def in_a_wait_for() -> None:
    await asyncio.wait_for(waits_in_a_library(), 3600)


async def in_a_shield() -> None:
    await asyncio.shield(waits_in_a_library())


async def as_completed() -> None:
    for future in asyncio.as_completed([asyncio.sleep(3600), waits_in_a_library()]):
        await future


async def in_a_task_of_a_task() -> None:
    await asyncio.gather(in_a_task_of_a_group(), return_exceptions=True)


async def in_the_body_of_a_group() -> None:
    """A wait of the app itself is shown at its own line, whatever else runs in its group."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits_in_anyio)
        await asyncio.Event().wait()  # here


WAYS = [
    (in_a_task_of_a_group, waits_in_anyio),
    (in_a_task_that_is_awaited, waits_in_a_library),
    (in_a_gather, waits_in_a_library),
    (in_a_wait, waits_in_a_library),
    (in_a_wait_for, waits_in_a_library),
    (in_a_shield, waits_in_a_library),
    (in_a_task_of_a_task, waits_in_anyio),
    (in_the_body_of_a_group, in_the_body_of_a_group),
]
if sys.version_info >= (3, 11):
    WAYS.append((in_a_task_of_asyncios_group, waits_in_a_library))
if sys.version_info >= (3, 13):  # before, asyncio keeps what is waited for where nobody can look
    WAYS.append((as_completed, waits_in_a_library))


@pytest.mark.anyio
@pytest.mark.parametrize(("waiting", "named"), WAYS)
@pytest.mark.parametrize("uvloop", [False, True])
async def test_work_is_followed_into_the_tasks_that_it_waits_for(
    waiting: Callable[[], Any], named: Callable[[], Any]
) -> None:
    async with waiting_task(waiting()) as task:
        assert where(task.get_coro()) == line_of(named)


@contextlib.asynccontextmanager
async def waiting_task(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Run *coroutine* in a task for the length of a block, in which nothing goes on."""
    task = asyncio.ensure_future(coroutine)
    await anyio.wait_all_tasks_blocked()
    yield task
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.anyio
async def test_of_several_tasks_the_first_with_a_line_of_the_app_is_followed() -> None:
    """A set has no order; the report has to say the same each time."""

    async def number(count: int) -> None:
        await waits_here() if count < 0 else await asyncio.sleep(3600)

    async def many() -> None:
        await asyncio.wait([asyncio.ensure_future(number(count)) for count in range(20)])

    async with waiting_task(many()) as task:
        *_, frame = [f for f in trail_of(task.get_coro()).frames if f.f_code.co_name == "number"]
        assert frame.f_locals["count"] == 0


class App:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await waits_in_a_library()


@pytest.mark.anyio
async def test_starlettes_middleware_is_followed_to_the_endpoint() -> None:
    async def passes_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app = BaseHTTPMiddleware(BaseHTTPMiddleware(App(), passes_on), passes_on)
    nothing: Any = asyncio.Event().wait
    call = app(http_scope(), nothing, nothing)
    async with waiting_task(call) as task:
        chain = list(compressed(trail_of(task.get_coro()).frames))
    assert sum("in passes_on" in line for line in chain) == 2
    assert chain[-2] == line_of(waits_in_a_library)


@pytest.mark.anyio
async def test_a_task_that_knows_its_own_group_is_followed_once() -> None:
    async def group() -> None:
        async with anyio.create_task_group() as tasks:

            async def inner() -> None:
                while tasks is not None:
                    await waits_in_anyio()

            tasks.start_soon(inner)

    async with waiting_task(group()) as task:
        lines = list(compressed(trail_of(task.get_coro()).frames))
    assert sum("waits_in_anyio" in line for line in lines) == 1


@pytest.mark.anyio
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
    names = [frame.f_code.co_name for frame in trail_of(task.get_coro()).frames]
    way_out.set_result([])  # asyncio cannot cancel such a circle: it goes around, too
    await task
    assert names == ["one", "other"]


class Proxy:
    """Stands for something else that is not there now, like the current request of a library."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} outside of a request")

    def __await__(self) -> Any:
        return Waits()


class Waits:
    """An iterator of the app's own, which an awaitable gives."""

    def __getattribute__(self, name: str) -> Any:
        raise AttributeError if name == "close" else RuntimeError(name)  # Python's own at its end

    def __iter__(self) -> Waits:
        return self

    def __next__(self) -> None:
        return None


@pytest.mark.anyio
async def test_variables_of_the_app_are_not_asked_for_anything() -> None:
    async def handler(self: Proxy, worker: Proxy) -> None:
        fs = Proxy()
        await Proxy()  # here
        del fs

    coroutine = handler(Proxy(), Proxy())
    coroutine.send(None)
    trail = trail_of(coroutine)
    coroutine.close()
    assert innermost(trail.frames).endswith("in handler")
    assert trail.thread is None


# Threads that work waits for


async def in_the_pool_of_the_loop(function: Callable[[], Any]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function)


async def in_a_shielded_thread(function: Callable[[], Any]) -> None:
    await asyncio.shield(asyncio.to_thread(function))


async def in_a_thread_of_a_task(function: Callable[[], Any]) -> None:
    await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(function))])


THREADS = [
    anyio.to_thread.run_sync,
    asyncio.to_thread,
    in_the_pool_of_the_loop,
    in_a_shielded_thread,
    in_a_thread_of_a_task,
]


@pytest.mark.anyio
@pytest.mark.parametrize("uvloop", [False, True])
@pytest.mark.parametrize("run", THREADS)
async def test_the_thread_that_works_for_a_coroutine_is_found(run: Callable[..., Any]) -> None:
    block, other = Blocked(), Blocked()
    others = asyncio.ensure_future(run(other.blocks))
    task = asyncio.ensure_future(run(block.blocks))
    await eventually(lambda: block.is_inside() and other.is_inside())
    trail = trail_of(task.get_coro())
    (blocks,) = (frame for frame in trail.frames if frame.f_code.co_name == "blocks")
    said, who, name = innermost(trail.frames), blocks.f_locals["self"], thread_name(trail.thread)
    block.release.set()
    other.release.set()
    await asyncio.wait([task, others])
    assert said == line_of(Blocked.blocks)
    assert who is block
    assert name
    assert trail_of(task.get_coro()).thread is None


def calls_back_with_anyio() -> None:
    anyio.from_thread.run(waits_in_a_library)


def calls_back_with_asyncio(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(waits_in_a_library(), loop).result()


class LoopInAThread:
    """A plain function that runs a loop of its own, until it is told to stop."""

    def run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await waits_in_a_library()

    def stop(self) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["anyio", "asyncio"])
async def test_a_thread_that_waits_for_the_loop_is_followed_back_into_it(how: str) -> None:
    """Django's sync middleware around an async view is one; FastAPI's `def` endpoints are."""
    loop = asyncio.get_running_loop()
    if how == "anyio":
        call = anyio.to_thread.run_sync(calls_back_with_anyio)
    else:
        call = asyncio.to_thread(calls_back_with_asyncio, loop)
    task = asyncio.ensure_future(call)
    await eventually(lambda: where(task.get_coro()) == line_of(waits_in_a_library))
    trail = trail_of(task.get_coro())
    assert f"in calls_back_with_{how}" in "".join(compressed(trail.frames))
    assert trail.thread is not None
    for inner in asyncio.all_tasks() - {task}:
        if where(inner.get_coro()) == line_of(waits_in_a_library):
            inner.cancel()
    await asyncio.wait([task])


@pytest.mark.anyio
async def test_a_loop_in_a_thread_is_followed() -> None:
    inner = LoopInAThread()
    task = asyncio.ensure_future(asyncio.to_thread(inner.run))
    try:
        await eventually(lambda: where(task.get_coro()) == line_of(waits_in_a_library))
    finally:
        inner.stop()
        await task
