"""The work that the middleware adds to a request, counted in calls and byte codes on any machine.

Time depends on what else a machine does, these counts do not. `test_counts.py` holds them.

    python -m tests.bench.counts
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graceful_asgi import DrainPolicy, GracefulMiddleware
from graceful_asgi._core.drainer import runner_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from graceful_asgi.types import ASGIApp, Message, Receive, Scope, Send

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}
PIECE = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
TEXT = {"type": "websocket.send", "text": "ok"}


@dataclass
class Counts:
    """Counts of Python functions (and coroutines that went on), C functions, byte codes."""

    functions: int
    builtins: int
    codes: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.functions - other.functions,
            self.builtins - other.builtins,
            self.codes - other.codes,
        )


class PassThrough:
    """The least that a middleware can be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        return await self.app(scope, receive, send)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with one message."""
    await send(START)
    await send(BODY)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request's body, and answer."""
    await receive()
    await send(START)
    await send(BODY)


def pieces(count: int) -> ASGIApp:
    """Return an app that answers in *count* pieces before the last."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for _ in range(count):
            await send(PIECE)
        await send(BODY)

    return stream


def echoes(count: int) -> ASGIApp:
    """Return an app that gets *count* messages on a WebSocket, and answers each."""

    async def session(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for _ in range(count):
            await receive()
            await send(TEXT)

    return session


def idle_server(kind: str) -> tuple[Receive, Send]:
    """Return the `receive` and the `send` of a server that does nothing."""
    received = {"type": "http.request", "body": b"", "more_body": False}
    if kind == "websocket":
        received = {"type": "websocket.receive", "text": "ok"}

    async def receive() -> Message:
        return received

    async def send(message: Message) -> None:
        pass

    return receive, send


async def on_ticking_server(
    app: ASGIApp, kind: str, *, lifespan: bool = True
) -> GracefulMiddleware:
    """Return the middleware around *app* as it is while a server that ticks, as uvicorn, serves."""
    middleware = GracefulMiddleware(app, policy=DrainPolicy(lame_duck_period=0))
    await _call(middleware, kind)  # the first call looks for the server
    runner_of(middleware.drainer).in_flight.tick()
    # Without a lifespan another server may follow unseen: each request looks which one it is of.
    middleware._has_several = not lifespan
    return middleware


async def _call(app: ASGIApp, kind: str) -> None:
    receive, send = idle_server(kind)
    scope = {"type": kind, "http_version": "1.1", "method": "GET", "path": "/", "headers": []}
    await app({**scope, "server": ("127.0.0.1", 8000), "state": {}}, receive, send)


def _traced(run: Callable[[], object]) -> Counts:
    counts = Counts(0, 0, 0)
    gc.collect()
    gc.disable()  # it may run the finalizers of others

    def profile(frame: FrameType, event: str, arg: object) -> None:
        counts.functions += event == "call"
        counts.builtins += event == "c_call"

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_opcodes = True
        counts.codes += event == "opcode"
        return trace

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
        gc.enable()
    return counts


def added(app: ASGIApp, kind: str = "http", *, lifespan: bool = True) -> Counts:
    """Return what the middleware adds to one call of *app*, beyond a middleware that does nothing.

    Not to be called where a debugger or a coverage tool traces.
    """

    async def count() -> Counts:
        found = []
        graceful = await on_ticking_server(app, kind, lifespan=lifespan)
        for middleware in (PassThrough(app), graceful):

            def run(middleware: ASGIApp = middleware) -> None:
                # Nothing in the call waits, so one step runs it from its start to its end.
                try:
                    _call(middleware, kind).send(None)
                except StopIteration:
                    return
                raise RuntimeError("the call has waited")

            found.append(_traced(run))
        plain, ours = found
        return ours - plain

    return asyncio.run(count())


def counts() -> dict[str, Counts]:
    """Return what the middleware adds, by what it adds it to."""
    one, two = added(pieces(10)), added(pieces(11))
    quiet, busy = added(echoes(10), "websocket"), added(echoes(11), "websocket")
    return {
        "request": added(answer),
        "request with a body": added(read),
        "request without a lifespan": added(answer, lifespan=False),
        "streamed piece": two - one,
        "WebSocket message and answer": busy - quiet,
    }


if __name__ == "__main__":
    json.dump({name: asdict(each) for name, each in counts().items()}, sys.stdout, indent=2)
