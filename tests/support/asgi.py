"""Call an ASGI app as a server does: scopes, calls, a whole lifespan, a drain around them.

Nothing here looks into the package.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from graceful_asgi import DrainPolicy, GracefulMiddleware, Phase
from graceful_asgi._core.drainer import as_drainer, runner_of
from graceful_asgi._core.runner import DrainRunner
from support.polling import PATIENCE
from support.virtual_time import virtual_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup
    from typing_extensions import Self

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[Any]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

OK: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


# ASGI, from the server's side


def http_scope(
    path: str = "/",
    *,
    method: str = "GET",
    http_version: str = "1.1",
    headers: Headers = (),
    **more: Any,
) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": http_version,
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        **more,
    }


def websocket_scope(path: str = "/ws", **more: Any) -> dict[str, Any]:
    scope = http_scope(path, **more)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}


class Call:
    """One call of an ASGI app, as the server sees it."""

    def __init__(self, app: App, scope: MutableMapping[str, Any], *received: Message) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self.returned: object = None
        self.error: BaseException | None = None
        self.running = anyio.Event()
        self.over = anyio.Event()
        self.between: Callable[[Message, Send], Awaitable[None]] | None = None
        """Gets each message of the app's, and the `send` that takes it: a server with a will."""
        self._app = app
        self._received = list(received)

    async def receive(self) -> Message:
        self.running.set()
        await anyio.lowlevel.checkpoint()
        if not self._received:
            await anyio.sleep_forever()
        return self._received.pop(0)

    async def send(self, message: Message) -> None:
        self.running.set()
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)

    async def _send(self, message: Message) -> None:
        if self.between is None:
            await self.send(message)
        else:
            await self.between(message, self.send)

    async def run(self) -> Call:
        """Call the app; keep what it raises or returns."""
        try:
            self.returned = await self._app(self.scope, self.receive, self._send)
        except BaseException as exc:
            self.error = exc
            if not isinstance(exc, Exception):
                raise
        finally:
            self.over.set()
        return self

    def message(self, kind: str) -> Message:
        """Return the one message of *kind* that the app has sent."""
        (message,) = (message for message in self.sent if message["type"] == kind)
        return message

    @property
    def start(self) -> Message:
        return self.message("http.response.start")

    @property
    def status(self) -> int:
        return int(self.start["status"])

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the response's header *name*; a header that comes twice is wrong."""
        values = [value for key, value in self.start["headers"] if key.lower() == name]
        assert len(values) < 2, values
        return values[0] if values else None


class AsgiServer:
    """A server this package does not know: it runs the lifespan, then calls the app."""

    def __init__(self, app: App, tasks: TaskGroup, *, state: bool = True) -> None:
        self.state: dict[str, Any] | None = {} if state else None
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self.over = anyio.Event()
        self._app = app
        self._tasks = tasks
        self._started = anyio.Event()
        self._shutdown = anyio.Event()
        self._received: list[str] = []

    async def start(self) -> None:
        """Run the lifespan up to the answer to its startup, or to its end."""
        self._tasks.start_soon(self._lifespan)
        with anyio.fail_after(PATIENCE):
            await self._started.wait()

    async def shut_down(self) -> None:
        """Run the lifespan to its end."""
        self.tell_to_shut_down()
        with anyio.fail_after(PATIENCE * 10):  # virtual seconds, some of them
            await self.over.wait()

    def tell_to_shut_down(self) -> None:
        self._shutdown.set()

    async def _lifespan(self) -> None:
        scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}}
        if self.state is not None:
            scope["state"] = self.state
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as exc:
            self.error = exc
        finally:
            self._started.set()
            self.over.set()

    async def _receive(self) -> Message:
        self._received.append("startup" if not self._received else "shutdown")
        if self._received[-1] == "shutdown":
            await self._shutdown.wait()
        return {"type": f"lifespan.{self._received[-1]}"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"].startswith("lifespan.startup"):
            self._started.set()

    def call(self, scope: MutableMapping[str, Any], *received: Message) -> Call:
        """Return a call that has not run: with a copy of the lifespan's state, as ASGI has it."""
        if self.state is not None:
            scope["state"] = self.state.copy()
        return Call(self._app, scope, *received)

    async def begin(self, scope: MutableMapping[str, Any], *received: Message) -> Call:
        """Start a call, and return once the app runs and waits for its client."""
        call = self.call(scope, *received)
        self._tasks.start_soon(call.run)
        with anyio.fail_after(PATIENCE):
            await call.running.wait()
        return call

    async def get(self, path: str = "/", **more: Any) -> Call:
        """Make a whole request."""
        with anyio.fail_after(PATIENCE):
            return await self.call(http_scope(path, **more)).run()


@asynccontextmanager
async def serving(app: App, *, state: bool = True) -> AsyncIterator[AsgiServer]:
    """Serve *app* for the length of a block, started; what still runs at its end is cancelled."""
    async with anyio.create_task_group() as tasks:
        server = AsgiServer(app, tasks, state=state)
        await server.start()
        yield server
        tasks.cancel_scope.cancel()


def with_lifespan(app: App) -> App:
    """Return *app* with the lifespan that most frameworks have."""

    async def whole(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> Any:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return None

    return whole


async def answer(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """The app that answers at once."""
    await send({**OK})
    await send({**END})


# The server a drain happens in


class FakeAdapter:
    """A server that does what the drain asks of it, and remembers when it was asked."""

    def __init__(self, drainer: DrainRunner) -> None:
        self.times: dict[str, float] = {}
        self.idle = True
        self.slow_readers = 0
        self._drainer = drainer
        self._began = drainer.now()

    def _note(self, verb: str) -> None:
        assert verb not in self.times, f"{verb} twice"
        self.times[verb] = self._drainer.now() - self._began

    async def close_listener(self) -> None:
        self._note("close_listener")

    def is_idle(self) -> bool:
        return self.idle

    def cut_answers(self) -> int:
        self._note("cut_answers")
        return self.slow_readers

    def cut_connections(self) -> None:
        self._note("cut_connections")


# Calls of an app behind the middleware

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


async def refused(server: AsgiServer, drainer: DrainRunner, scope: Any) -> Call:
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


async def shut_down(app: App, scope: Any) -> tuple[Call, DrainRunner]:
    """Shut a server down that has one call in flight which does not end by itself."""
    middleware = graceful(app, QUICK)
    async with serving(middleware) as server:
        call = await server.begin(scope)
        await anyio.wait_all_tasks_blocked()
        await server.shut_down()
        assert middleware.drainer.phase is Phase.STOPPED
        with anyio.fail_after(PATIENCE):
            await call.over.wait()
    return call, runner_of(middleware.drainer)


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
        self._inner = app
        self.drainer = DrainRunner(policy, clock=virtual_clock())
        super().__init__(GracefulMiddleware(app, drainer=as_drainer(self.drainer)), scope)
        self.times: list[float] = []
        self._tasks = tasks
        self._mail = Mailbox()
        self._began: float | None = None

    def join(self, other: LiveCall) -> None:
        """Make this a call of the same server as *other*. Call it before `open`."""
        self.drainer = other.drainer
        self._app = GracefulMiddleware(self._inner, drainer=as_drainer(self.drainer))

    @property
    def began(self) -> float:
        """The instant at which the drain began, by the drainer's clock."""
        return self._began or 0.0

    def say_no_more(self) -> None:
        """Make the server receive nothing any more, not even what was sent before."""
        self._mail = Mailbox()

    def say(self, message: Message) -> None:
        """Put *message* where the server receives the next one."""
        self._mail.put(message)

    async def receive(self) -> Message:
        message: Message = await self._mail.get()
        if message["type"].endswith(".disconnect"):
            self.say(message)  # and again to whoever asks again
        return message

    async def send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)
        self.times.append(self.now())
        # As ASGI has it, and uvicorn does: after its end the app receives the disconnect.
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.say({"type": "http.disconnect"})
        elif message["type"] == "websocket.close":
            self.say({**message, "type": "websocket.disconnect"})

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
        await self.drainer.drain(FakeAdapter(self.drainer))
        self.drainer.finish()
