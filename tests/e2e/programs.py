"""Programs that run a server themselves: `python -m e2e.programs NAME PORT [PORT]`.

SIGUSR1 is each program's own way of telling its server to stop; what that means differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from support.polling import eventually

from .app import app, make_app, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

    from starlette.applications import Starlette
    from starlette.requests import Request


def config(port: int, served: Starlette = app) -> uvicorn.Config:
    return uvicorn.Config(served, port=port)


def on_usr1(act: Callable[[], object]) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        say("USR1")
        act()

    signal.signal(signal.SIGUSR1, handle)


def stop(server: uvicorn.Server) -> None:
    server.should_exit = True


def serve(port: int) -> None:
    """The documented way. A clean drain ends the process in order."""
    server = uvicorn.Server(config(port))
    on_usr1(lambda: stop(server))
    asyncio.run(server.serve())
    say("program goes on")


class Subclass(uvicorn.Server):
    """As programs have it: a handler that does a little more."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        say(f"subclass got {sig}")
        super().handle_exit(sig, frame)


def subclass(port: int) -> None:
    asyncio.run(Subclass(config(port)).serve())


class Unhandled(uvicorn.Server):
    """As vllm has it: the program handles all signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def no_signals(port: int) -> None:
    """A server that captures no signals: the program's handler tells it to stop."""
    server = Unhandled(config(port))
    signal.signal(signal.SIGTERM, lambda number, frame: stop(server))
    asyncio.run(server.serve())
    say("program goes on")


def displaced(port: int) -> None:
    """A loop's handler takes the place of uvicorn's once the server is up."""

    async def main() -> None:
        server = uvicorn.Server(config(port))
        task = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop, server)
        say("handler displaced")
        await task

    asyncio.run(main())
    say("program goes on")


def cancels_serve(port: int) -> None:
    """As vllm has it: the program's handler cancels the task of `serve()`."""

    async def main() -> None:
        task = asyncio.create_task(Unhandled(config(port)).serve())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        say("handler installed")
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    say("program goes on")


def sets_an_event(port: int) -> None:
    """The program's handler wakes a task, and that one stops the server."""

    async def main() -> None:
        server = Unhandled(config(port))
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        say("handler installed")
        task = asyncio.create_task(server.serve())
        await asked.wait()
        stop(server)
        await task

    asyncio.run(main())
    say("program goes on")


def thread(port: int) -> None:
    """A server in a thread of a program that goes on for longer than any hard deadline."""
    server = uvicorn.Server(config(port))
    runner = threading.Thread(target=server.run, daemon=True)
    on_usr1(lambda: stop(server))
    runner.start()
    ended = time.monotonic() + 60
    while not server.should_exit and time.monotonic() < ended:
        time.sleep(0.01)
    runner.join(3.5)
    say(f"server thread {'goes on' if runner.is_alive() else 'has ended'}")
    time.sleep(1)
    say("program goes on")
    sys.exit(7)


def own_handler(port: int) -> None:
    """A program that handles SIGTERM itself, before and after its server."""
    got = []
    signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    asyncio.run(uvicorn.Server(config(port)).serve())
    say(f"own handler got {[int(number) for number in got]}")
    time.sleep(3)
    say("program goes on")
    sys.exit(7)


def two(port: int, other: int) -> None:
    """Two servers in one loop. USR1 stops the second."""

    async def main() -> None:
        servers = [uvicorn.Server(config(port)), uvicorn.Server(config(other, make_app()))]
        on_usr1(lambda: stop(servers[1]))
        await asyncio.gather(*(server.serve() for server in servers))

    asyncio.run(main())


def same_app(port: int, other: int) -> None:
    """The same app on two servers. USR1 stops the second."""

    async def main() -> None:
        servers = [uvicorn.Server(config(port)), uvicorn.Server(config(other))]
        on_usr1(lambda: stop(servers[1]))
        await asyncio.gather(*(server.serve() for server in servers))

    asyncio.run(main())


def second(port: int) -> None:
    """One server after the other, with the same app. USR1 stops the first."""
    server = uvicorn.Server(config(port))
    on_usr1(lambda: stop(server))
    asyncio.run(server.serve())
    say("the first has ended")
    asyncio.run(uvicorn.Server(config(port)).serve())


def shutdown(port: int) -> None:
    """USR1 has `shutdown()` called from outside of `serve()`, by three at once, and again."""

    async def main() -> None:
        server = uvicorn.Server(config(port))
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        on_usr1(lambda: loop.call_soon_threadsafe(asked.set))
        task = asyncio.create_task(server.serve())
        await asked.wait()
        await asyncio.gather(*(server.shutdown() for _ in range(3)))
        say("shutdown returned")
        await server.shutdown()
        await task
        say("serve returned")

    asyncio.run(main())
    time.sleep(2)
    say("program goes on")


class OldServer(uvicorn.Server):
    """As uvicorn was before 0.29: the loop runs its handlers, and nothing is raised in the end."""

    @property
    def capture_signals(self) -> Any:
        raise AttributeError("capture_signals")

    async def serve(self, sockets: Any = None) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        await self.startup(sockets)
        if not self.should_exit:
            await self.main_loop()
            await self.shutdown(sockets)


def old(port: int) -> None:
    """A uvicorn before 0.29, as far as signals go."""
    asyncio.run(OldServer(config(port)).serve())
    say("program goes on")


def shutdown_in_a_request(port: int) -> None:
    """`/shutdown` calls `shutdown()`, and `/behind/shutdown` in a task of a middleware's."""

    async def shut_down(request: Request) -> Response:
        await server.shutdown()
        return PlainTextResponse("shut down")

    async def behind(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Any:
        return await call_next(request)

    served = make_app()
    served.router.routes.append(Route("/shutdown", shut_down))
    inner = BaseHTTPMiddleware(Route("/behind/shutdown", shut_down), behind)
    served.router.routes.append(Mount("/", inner))
    server = uvicorn.Server(config(port, served))
    asyncio.run(server.serve())
    say("program goes on")


def cancel(port: int) -> None:
    """USR1 has the task of `serve()` cancelled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(uvicorn.Server(config(port)).serve())
        on_usr1(lambda: loop.call_soon_threadsafe(task.cancel))
        try:
            await task
        except asyncio.CancelledError:
            say("serve was cancelled")

    asyncio.run(main())
    time.sleep(3)
    say("program goes on")


async def fail_beside(request: Request) -> Response:
    """Fail where nobody handles it: `?in=task`, `thread` or `callback`."""
    exc = ValueError(f"in a {request.query_params['in']}")

    async def fail() -> None:
        raise exc

    def callback() -> None:
        raise exc

    if request.query_params["in"] == "task":
        asyncio.create_task(fail())  # noqa: RUF006  # nobody holds it
    elif request.query_params["in"] == "thread":
        threading.Thread(target=callback).start()
    else:
        asyncio.get_running_loop().call_soon(callback)
    return PlainTextResponse("failing")


failing = make_app()
failing.router.routes.append(Route("/fail_beside", fail_beside))


def failing_thread(port: int) -> None:
    """As `thread`, with an app that can fail where nobody handles it."""
    server = uvicorn.Server(config(port, failing))
    runner = threading.Thread(target=server.run, daemon=True)
    runner.start()
    runner.join(15)
    say(f"server thread {'goes on' if runner.is_alive() else 'has ended'}")
    sys.exit(7)


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(int, sys.argv[2:]))
