"""Calls of an app behind the middleware, made as a server makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware, Phase
from support.helpers import PATIENCE, Call, FakeEdge, serving, virtual_clock, with_lifespan

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from typing_extensions import Self

    from support.helpers import App, Message, Receive, Send, Server

PATIENT = DrainPolicy(lame_duck_period=60, grace_period=60)
QUICK = DrainPolicy(
    lame_duck_period=0, grace_period=0.02, cancel_period=PATIENCE, websockets="finish"
)


def graceful(app: App, policy: DrainPolicy = PATIENT) -> GracefulMiddleware:
    return GracefulMiddleware(with_lifespan(app), policy=policy)


def app_with(*messages: Message, read: int = 0) -> App:
    """Return an app that receives so many messages, then sends these."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for _ in range(read):
            await receive()
        for message in messages:
            await send({**message})

    return app


async def run(app: App, scope: Any, *received: Message, begun: bool = True) -> Call:
    """Make one call to *app* behind a middleware that is draining."""
    middleware = graceful(app)
    async with serving(middleware) as server:
        if begun:
            middleware.drainer.begin("test")
        with anyio.fail_after(PATIENCE):
            return await server.call(scope, *received).run()


def started(*headers: tuple[bytes, bytes], status: int = 200, **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


async def refused(server: Server, drainer: Drainer, scope: Any) -> Call:
    drainer.begin("test")
    with anyio.fail_after(PATIENCE):
        return await server.call(scope).run()


def hangs_after(*messages: Message) -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send({**message})
        await receive()
        raise AssertionError("received something")

    return app


async def shut_down(app: App, scope: Any) -> tuple[Call, Drainer]:
    """Shut a server down that has one call in flight which does not end by itself."""
    middleware = graceful(app, QUICK)
    async with serving(middleware) as server:
        call = await server.begin(scope)
        await anyio.wait_all_tasks_blocked()
        await server.shut_down()
        assert middleware.drainer.phase is Phase.STOPPED
        with anyio.fail_after(PATIENCE):
            await call.over.wait()
    return call, middleware.drainer


class Mailbox:
    """A queue of one reader, in which nothing is lost when the reader leaves."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._came = anyio.Event()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._came.set()

    async def get(self) -> Any:
        while not self._items:
            self._came = anyio.Event()
            await self._came.wait()
        return self._items.pop(0)


class LiveCall(Call):
    """A call of an app behind the middleware whose client goes on talking, and a drain around it.

    Times are seconds since the drain began, by the drainer's clock.
    """

    def __init__(
        self, app: App, scope: dict[str, Any], tasks: TaskGroup, policy: DrainPolicy
    ) -> None:
        self.drainer = Drainer(policy, clock=virtual_clock())
        super().__init__(GracefulMiddleware(app, drainer=self.drainer), scope)
        self.times: list[float] = []
        self._tasks = tasks
        self._mail = Mailbox()
        self._began: float | None = None

    def say(self, message: Message) -> None:
        """Have *message* be the next that the server has received."""
        self._mail.put(message)

    async def receive(self) -> Message:
        message: Message = await self._mail.get()
        return message

    async def send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)
        self.times.append(self.now())

    def now(self) -> float:
        return self.drainer.now() - (self._began or 0.0)

    async def open(self) -> Self:
        """Begin the call, and return once the app waits."""
        self._tasks.start_soon(self.run)
        await anyio.wait_all_tasks_blocked()
        return self

    def begin(self) -> None:
        """Begin a drain that does not end the server."""
        self._began = self.drainer.now()
        self.drainer.begin("test")

    async def drain(self) -> None:
        """Stop the server, and follow the drain to its end."""
        if self._began is None:
            self._began = self.drainer.now()
        self.drainer.stop("SIGTERM")
        await self.drainer.drain(FakeEdge(self.drainer))
        self.drainer.finish()
