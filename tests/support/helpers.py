"""What the tests drive the package with: virtual time, a server of their own, fake edges.

Nothing here looks into the package: it calls an ASGI app as a server does, and acts for the
server a drain happens in.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from graceful_asgi import Drainer

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[Any]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

PATIENCE = 20.0
"""Seconds that a test waits for what has to come, on however slow a machine."""

OK: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


async def eventually(condition: Callable[[], object], *, within: float = PATIENCE) -> None:
    """Return once *condition* holds: for states that nobody announces. The one place that polls."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within} s: {condition}")
        await anyio.sleep(0.002)


# Virtual time


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the time on in place of waiting, where nothing is ready."""

    time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no timer is set: only another thread can go on
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.time += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in which a wait of 30 s takes no time, as trio has it in `MockClock`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.time


def virtual_time(backend: str) -> tuple[str, dict[str, Any]]:
    """Return *backend* for an `anyio_backend` fixture, with time that jumps from timer to timer."""
    if backend == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def virtual_clock() -> Callable[[], float] | None:
    """Return what a `Drainer` in virtual time takes for `clock`. In trio it finds it by itself."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return None


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += seconds


# The server a drain happens in


class FakeEdge:
    """A server that does what the drain asks of it, and remembers when it was asked."""

    def __init__(self, drainer: Drainer) -> None:
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

    async def run(self) -> Call:
        """Call the app; keep what it raises or returns."""
        try:
            self.returned = await self._app(self.scope, self.receive, self.send)
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


class Server:
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
async def serving(app: App, *, state: bool = True) -> AsyncIterator[Server]:
    """Serve *app* for the length of a block, started; what still runs at its end is cancelled."""
    async with anyio.create_task_group() as tasks:
        server = Server(app, tasks, state=state)
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


# Processes


def run_python(source: str, *, within: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run *source* as a program of its own, with this package; return how it ended."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(root)]).lstrip(os.pathsep)
    try:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(source)],
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as exc:
        raise AssertionError(f"not over within {within} s: {exc.stdout!r} {exc.stderr!r}") from None
