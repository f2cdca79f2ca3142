"""Programs with several servers in one process: `python -m e2e.several_servers NAME PORT PORT`.

SIGUSR1 stops the first server by code, SIGUSR2 the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from support.polling import eventually

from graceful_asgi import GracefulMiddleware

from .app import make_app, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import FrameType

    from starlette.applications import Starlette

    from graceful_asgi.types import Receive, Scope, Send


def make_servers(*ports: int) -> list[uvicorn.Server]:
    servers = [uvicorn.Server(uvicorn.Config(make_app(), port=port)) for port in ports]

    def stop(number: int, frame: FrameType | None) -> None:
        servers[number == signal.SIGUSR2].should_exit = True

    signal.signal(signal.SIGUSR1, stop)
    signal.signal(signal.SIGUSR2, stop)
    return servers


def one_loop(*ports: int) -> None:
    """Both in one loop, as an API and its metrics."""

    async def main() -> None:
        await asyncio.gather(*(server.serve() for server in make_servers(*ports)))
        say("program goes on")

    asyncio.run(main())


def of_one_app(*ports: int) -> None:
    """Both serve one app object, without a lifespan: each is found at its first request."""

    async def main() -> None:
        app = make_app()
        configs = [uvicorn.Config(app, port=port, lifespan="off") for port in ports]
        await asyncio.gather(*(uvicorn.Server(config).serve() for config in configs))
        say("program goes on")

    asyncio.run(main())


def one_in_a_thread(*ports: int) -> None:
    """The first in a daemon thread, the second in the main thread."""
    servers = make_servers(*ports)
    threading.Thread(target=servers[0].run, daemon=True).start()
    servers[1].run()
    say("program goes on")


def started_later(*ports: int) -> None:
    """The second starts while the first drains, and would serve on."""

    async def main() -> None:
        servers = make_servers(*ports)
        first = asyncio.create_task(servers[0].serve())
        await eventually(lambda: servers[0].should_exit, within=60)
        say("starts another")
        await asyncio.gather(first, servers[1].serve())
        say("program goes on")

    asyncio.run(main())


def after_the_end(*ports: int) -> None:
    """The second runs in a thread once the first has ended. Then the program hangs."""
    first, second = make_servers(*ports)
    first.run()
    thread = threading.Thread(target=second.run)
    thread.start()
    thread.join()
    say("program hangs")
    time.sleep(60)


def given_up_in_its_startup(*ports: int) -> None:
    """The second hangs in its startup, and the program gives it up once the first is done."""

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        say("the second hangs")
        await asyncio.sleep(3600)

    async def main() -> None:
        first, second = make_servers(*ports)
        second.config.app = GracefulMiddleware(hang)
        tasks = [asyncio.create_task(server.serve()) for server in (first, second)]
        await eventually(lambda: first.started)
        lifespan: Any = first.lifespan
        await lifespan.shutdown_event.wait()
        tasks[1].cancel()
        await tasks[0]
        say("program goes on")

    asyncio.run(main())


def in_a_lifespan(*ports: int) -> None:
    """The second serves for as long as the lifespan of the first, which waits for its end."""
    first, second = make_servers(*ports)
    app: Any = first.config.app
    around = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with around(app):
            task = asyncio.create_task(second.serve())
            await eventually(lambda: second.started)
            yield
            second.should_exit = True
            await asyncio.gather(task)
            say("the second is over")

    app.router.lifespan_context = lifespan
    with contextlib.suppress(KeyboardInterrupt):
        first.run()
    say("program goes on")


def in_a_fork(*ports: int) -> None:
    """One server in a child that multiprocessing forks, and a program that passes SIGTERM on.

    Its log is slow: lines still wait to be written when the child ends.
    """

    def write_slowly(record: logging.LogRecord) -> bool:
        time.sleep(0.03)
        return True

    (server,) = make_servers(*ports)
    logging.getLogger("graceful_asgi").addFilter(write_slowly)
    child = multiprocessing.get_context("fork").Process(target=server.run)
    child.start()
    signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    say("SIGTERM is passed on")
    child.join()
    say(f"the child has ended with {child.exitcode}")


def plain_thread(*ports: int) -> None:
    """One server in a daemon thread, and a program that handles no signal."""
    threading.Thread(target=make_servers(*ports)[0].run, daemon=True).start()
    time.sleep(60)


def handled_thread(*ports: int) -> None:
    """One server in a thread, and a program that handles SIGTERM."""
    (server,) = servers = make_servers(*ports)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    stop.wait()
    servers[0].should_exit = True
    thread.join()
    say("program goes on")


def waited_for_thread(*ports: int) -> None:
    """One server in a thread, and a program that waits for SIGTERM in its main thread."""
    (server,) = make_servers(*ports)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    thread = threading.Thread(target=server.run)
    thread.start()
    signal.sigwait({signal.SIGTERM})
    server.should_exit = True
    thread.join()
    say("program goes on")


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(int, sys.argv[2:]))
