"""Programs that go on after their server: `python -m e2e.after_serve NAME PORT`.

Each says what of it has run. APP_PLAIN=1 leaves the middleware out, for what plain uvicorn does.
APP_LOOP picks the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from support.polling import eventually, wait_until

from .app import make_bare_app, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from graceful_asgi.types import ASGIApp, Receive, Scope, Send

LOOP: Any = os.environ.get("APP_LOOP", "asyncio")

bare = make_bare_app()

if "APP_PLAIN" not in os.environ:
    from graceful_asgi import GracefulMiddleware

    bare.add_middleware(GracefulMiddleware)


def config(port: int) -> uvicorn.Config:
    return uvicorn.Config(bare, port=port, loop=LOOP)


def run(main: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run *main* as a program does, on the loop that is wanted, and say how that ends."""
    try:
        if LOOP == "uvloop":
            import uvloop

            uvloop.run(main())
        else:
            asyncio.run(main())
    except KeyboardInterrupt:
        say("interrupted")
    say("after the loop")


def uvicorn_run(port: int) -> None:
    try:
        uvicorn.run(bare, port=port, loop=LOOP)
    except KeyboardInterrupt:
        say("interrupted")
    finally:
        say("finally")
    say("after uvicorn.run()")


def server_run(port: int) -> None:
    try:
        uvicorn.Server(config(port)).run()
    except KeyboardInterrupt:
        say("interrupted")
    say("after server.run()")


def run_over_and_over(port: int) -> None:
    """Restart the server whenever it ends, as a small supervisor does."""
    for number in itertools.count(1):
        say(f"round {number}")
        uvicorn.run(bare, port=port, loop=LOOP)


def same_server_again(port: int) -> None:
    """Serve with the same object again, as a program with a button for it does. USR1 stops it."""
    lifespan: Any = os.environ.get("APP_LIFESPAN", "on")
    server = uvicorn.Server(uvicorn.Config(bare, port=port, loop=LOOP, lifespan=lifespan))
    signal.signal(signal.SIGUSR1, lambda *_: setattr(server, "should_exit", True))

    async def main() -> None:
        for number in range(3):
            server.should_exit = server.started = False
            await server.serve()
            say(f"after round {number}")

    run(main)


def same_server_in_its_startup(port: int) -> None:
    """Serve with the same object over and over. SIGTERM comes in startup number APP_SIGNALLED."""
    lifespan: Any = os.environ.get("APP_LIFESPAN", "on")

    class Signalled(uvicorn.Server):
        rounds = 0

        async def startup(self, sockets: Any = None) -> None:
            self.rounds += 1
            if self.rounds == int(os.environ["APP_SIGNALLED"]):
                signal.raise_signal(signal.SIGTERM)
            await super().startup(sockets)

    server = Signalled(uvicorn.Config(bare, port=port, loop=LOOP, lifespan=lifespan))
    signal.signal(signal.SIGUSR1, lambda *_: setattr(server, "should_exit", True))
    for number in itertools.count(1):
        server.should_exit = server.started = False
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(server.serve())
        say(f"after round {number}, {sum(len(each.sockets) for each in server.servers)} listen")


def frozen_time(port: int) -> None:
    """Freeze the time as freezegun does with `real_asyncio=True`: only event loops go on."""
    real = time.monotonic
    asyncio.BaseEventLoop.time = lambda self: real()  # type: ignore[method-assign]  # as freezegun does
    for module in list(sys.modules.values()):
        for name in [name for name, value in vars(module).items() if value is real]:
            setattr(module, name, lambda: 1.5e9)
    uvicorn_run(port)


def idle_after_ctrl_c(port: int) -> None:
    """Go on without a server, and print which of the threads wake up meanwhile."""
    uvicorn.run(bare, port=port, loop=LOOP)
    idle()


def taken_port(port: int) -> None:
    """Try again and again to listen on a port that is taken."""
    from socket import socket

    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fail_to_start(lambda: uvicorn.run(bare, port=taken.getsockname()[1], loop="asyncio"))
    uvicorn_run(port)


def raising_startup(port: int) -> None:
    """Try again and again to start an app that raises, and sends no `lifespan.startup.failed`."""
    app = behind_middleware(raise_in_startup)
    fail_to_start(lambda: uvicorn.run(app, port=port, lifespan="on", loop=LOOP))
    uvicorn_run(port)


def hanging_startup(port: int) -> None:
    """Give up again and again to start an app that hangs."""

    async def main() -> None:
        app = behind_middleware(hang_in_startup)
        server = uvicorn.Server(uvicorn.Config(app, port=port, loop=LOOP))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.serve(), 0.2)

    fail_to_start(lambda: asyncio.run(main()))
    uvicorn_run(port)


def hanging_startup_in_one_loop(port: int) -> None:
    """The same, in an event loop that goes on: no app is told that its server has ended."""

    async def main() -> None:
        for number in range(6):
            app = behind_middleware(hang_in_startup)
            server = uvicorn.Server(uvicorn.Config(app, port=port, loop=LOOP))
            await give_up(server)
            if number == 1:
                await asyncio.sleep(1)
                before = tasks_and_descriptors()
        with contextlib.suppress(AssertionError):
            await eventually(lambda: more_than(before) == (0, 0))
        say_what_is_more(before)
        await uvicorn.Server(config(port)).serve()

    run(main)


def server_after_a_given_up_startup(port: int) -> None:
    """Serve one app after the startup of another was cancelled."""

    async def main() -> None:
        app: Any = behind_middleware(hang_in_startup)
        await give_up(uvicorn.Server(uvicorn.Config(app, port=port, loop=LOOP)))
        await uvicorn.Server(config(port)).serve()
        say("after the second")

    run(main)


def same_server_after_a_given_up_startup(port: int) -> None:
    """Serve with the same object again. The app's first startup goes on, and waits for ever."""
    starts = itertools.count()

    async def hang_at_first(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and next(starts) == 0:
            await hang_in_startup(scope, receive, send)
        await bare(scope, receive, send)

    async def main() -> None:
        app = behind_middleware(hang_at_first)
        server = uvicorn.Server(uvicorn.Config(app, port=port, loop=LOOP))
        await give_up(server)
        await server.serve()
        say("after the second")

    run(main)


async def give_up(server: uvicorn.Server) -> None:
    """Start *server*, and cancel that once its app hangs."""
    before, task = len(hanging), asyncio.ensure_future(server.serve())
    await eventually(lambda: len(hanging) > before)
    task.cancel()
    await asyncio.wait([task])


class ByHand:
    """Awaits a coroutine, and shows no frame of it, as compiled code does."""

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._steps = coroutine.__await__()

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> object:
        return next(self._steps)


def without_lifespan_by_hand(port: int) -> None:
    """Serve an app that raises at its lifespan, in a task that shows no frames."""
    without_lifespan = behind_middleware(raise_in_startup)
    server = uvicorn.Server(uvicorn.Config(without_lifespan, port=port, loop=LOOP))

    async def main() -> None:
        await ByHand(server.serve())

    run(main)


def behind_middleware(app: ASGIApp) -> ASGIApp:
    if "APP_PLAIN" in os.environ:
        return app
    return GracefulMiddleware(app)


async def raise_in_startup(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("no database")


hanging: list[Scope] = []


async def hang_in_startup(scope: Scope, receive: Receive, send: Send) -> None:
    hanging.append(scope)
    await asyncio.sleep(3600)


def fail_to_start(start: Callable[[], object]) -> None:
    """Start a server six times, and print what the last four leave behind."""
    for number in range(6):
        with contextlib.suppress(SystemExit):
            start()
        if number == 1:
            time.sleep(1)  # what has just ended may still clean up
            before = tasks_and_descriptors()
    with contextlib.suppress(AssertionError):
        wait_until(lambda: more_than(before) == (0, 0))
    say_what_is_more(before)


def say_what_is_more(before: tuple[int, int]) -> None:
    threads, descriptors = more_than(before)
    say(f"after 4 more starts: {threads} threads, {descriptors} descriptors more")


def more_than(before: tuple[int, int]) -> tuple[int, int]:
    """Return how many more there are now, by `tasks_and_descriptors`.

    On a slow machine *before* may have counted some that were about to go.
    """
    now = tasks_and_descriptors()
    return max(0, now[0] - before[0]), max(0, now[1] - before[1])


def tasks_and_descriptors() -> tuple[int, int]:
    """Return how many threads and how many descriptors this process has."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def idle_with_own_signals(port: int) -> None:
    """Take the signals oneself, keep the server after its end, and go on as above."""

    class OwnSignals(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = OwnSignals(config(port))
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))

    async def main() -> None:
        await server.serve()
        idle()

    run(main)


def idle() -> None:
    """Sleep, and print how often threads of this process wake up meanwhile."""
    time.sleep(1)  # what has just ended may still clean up
    before = wake_ups()
    time.sleep(4)
    say(f"after 4 s: {wake_ups() - before} wake-ups")


def wake_ups() -> int:
    """Return how often the threads of this process have waited for something and gone on."""
    lines = []
    for file in Path("/proc/self/task").glob("*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
            lines += file.read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def serve(port: int) -> None:
    async def main() -> None:
        try:
            await uvicorn.Server(config(port)).serve()
        finally:
            say("finally")
        say("after serve()")

    run(main)


def serve_and_work(port: int) -> None:
    """Run slow code after the server, in the task of the server."""

    async def main() -> None:
        await uvicorn.Server(config(port)).serve()
        await asyncio.sleep(float(os.environ.get("APP_WORK", "1.5")))
        say("after serve()")

    run(main)


def outer_lifespan(port: int) -> None:
    """As fastmcp has it: a context manager around the server."""

    @contextlib.asynccontextmanager
    async def life() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0.1)
            say("outer lifespan closed")

    async def main() -> None:
        async with life():
            await uvicorn.Server(config(port)).serve()

    run(main)


async def bot() -> None:
    """Work for ever."""
    try:
        for _ in itertools.count():
            await asyncio.sleep(0.1)
    finally:
        say("bot ends")


def gather(port: int) -> None:
    """The program waits for the bot as well, for ever."""

    async def main() -> None:
        await asyncio.gather(uvicorn.Server(config(port)).serve(), bot())

    run(main)


def task_group(port: int) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined]  # from Python 3.11 on
            tasks.create_task(uvicorn.Server(config(port)).serve())
            tasks.create_task(bot())

    run(main)


def wait_first(port: int) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(uvicorn.Server(config(port)).serve())]
        tasks += [asyncio.create_task(bot())]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        say("after the first")
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)
        await asyncio.sleep(1.5)
        say("orderly end")

    run(main)


def awaited_task(port: int) -> None:
    async def main() -> None:
        await asyncio.create_task(uvicorn.Server(config(port)).serve())
        say("after the task")

    run(main)


def cancelled_by_handler(port: int) -> None:
    """As vLLM has it: the handler of a signal cancels `serve()`, and `shutdown()` is awaited next.

    The event loop runs the handler. On a busy machine it may do so after uvicorn has begun its
    shutdown, because uvicorn's own handler runs earlier. Here it always does.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = uvicorn.Server(config(port))
        task = loop.create_task(server.serve())

        def stop() -> None:
            task.cancel()
            say("serve() is cancelled")

        loop.add_signal_handler(signal.SIGTERM, loop.call_later, 0.3, stop)
        try:
            await task
        except asyncio.CancelledError:
            await server.shutdown()
        say("after shutdown()")

    run(main)


def stopped_loop(port: int) -> None:
    """Give the server a moment to stop, then stop the loop. Its end cancels every task."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = uvicorn.Server(config(port))
        task = loop.create_task(server.serve())

        def stop() -> None:
            server.should_exit = True
            loop.call_later(0.3, loop.stop)

        await eventually(lambda: server.started)
        loop.add_signal_handler(signal.SIGTERM, stop)
        say("handler installed")
        await task

    try:
        run(main)
    except RuntimeError as error:
        say(f"after the loop: {error}")


def run_for_ever(port: int) -> None:
    """As old programs have it; nothing waits for the server."""
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(uvicorn.Server(config(port)).serve()), loop.create_task(bot())]
    try:
        loop.run_forever()
    finally:
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
