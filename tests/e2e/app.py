"""The app under test, run by servers in subprocesses. Policy and misbehaviour by environment.

APP_STARTUP and APP_SHUTDOWN say what the lifespan does: `sleep 2`, `hang`, `block`, `raise`.
APP_BEFORE_HOOK is how many seconds pass before the middleware sees the lifespan.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware, drain_notice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from graceful_asgi.types import ASGIApp, Receive, Scope, Send

CHUNK = b"0123456789" * 10
MEGABYTE = 1 << 20
PATHS = {"readiness_path": "/readyz", "liveness_path": "/livez"}


def say(line: str) -> None:
    """Print for the test to read, at once and whatever happens next."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def seconds(request: Request, default: float = 60) -> float:
    return float(request.query_params.get("s", default))


async def index(request: Request) -> Response:
    return PlainTextResponse("hello")


async def file_is_made(name: str) -> None:
    path = anyio.Path(name)
    while not await path.exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.02)


async def slow(request: Request) -> Response:
    """Answer after `?s=` seconds, or once the file `?until=` is there."""
    say(f"slow began {request.query_params.get('name', '')}")
    if until := request.query_params.get("until"):
        await file_is_made(until)
    else:
        await asyncio.sleep(seconds(request))
    return PlainTextResponse("slow, but complete")


async def stream(request: Request) -> Response:
    """Chunked, with a length (`?length=1`), or until the close (HTTP/1.0)."""
    count = int(request.query_params.get("n", 10))
    headers = {}
    if "length" in request.query_params:
        headers["content-length"] = str(count * len(CHUNK))
    return StreamingResponse(_chunks(count), headers=headers, media_type="text/plain")


async def _chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield CHUNK
        await asyncio.sleep(0.1)


async def big(request: Request) -> Response:
    """More than the kernel buffers, in one piece: the server waits for the reader."""
    return Response(bytes(int(request.query_params.get("mb", 16)) * MEGABYTE))


async def echo(request: Request) -> Response:
    say("echo began")
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
    return PlainTextResponse(str(received))


async def early(request: Request) -> Response:
    """Answer without reading the body."""
    await asyncio.sleep(seconds(request, 0))
    return PlainTextResponse("early")


async def swallow(request: Request) -> Response:
    say("swallow began")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)  # swallowed here


async def block(request: Request) -> Response:
    """Block the loop `?after=` seconds, or once the file `?until=` is there.

    It goes on after `?s=` seconds, or once the file `?over=` is there.
    """
    if until := request.query_params.get("until"):
        await file_is_made(until)
    else:
        await asyncio.sleep(float(request.query_params.get("after", 0)))
    say("block began")
    if over := request.query_params.get("over"):
        while not os.path.exists(over):  # noqa: ASYNC240  # blocked on purpose
            time.sleep(0.02)  # noqa: ASYNC251  # blocked on purpose
        return PlainTextResponse("unblocked")
    time.sleep(seconds(request))  # noqa: ASYNC251  # blocked here
    return PlainTextResponse("unblocked")


def thread(request: Request) -> Response:
    say("thread began")
    time.sleep(seconds(request))  # thread sleeps here
    return PlainTextResponse("thread done")


async def background(request: Request) -> Response:
    async def work() -> None:
        await asyncio.sleep(seconds(request, 1))
        say("background done")

    return PlainTextResponse("accepted", background=BackgroundTask(work))


async def fail(request: Request) -> Response:
    raise RuntimeError("as asked")


async def fork(request: Request) -> Response:
    """Fork a child that knows nothing of servers, and tell its pid."""
    pid = os.fork()
    if pid == 0:
        say("child runs")  # before that Python forgets a signal: it does not count as the child's
        time.sleep(60)  # noqa: ASYNC251  # no event loop runs in the child
        os._exit(9)
    return PlainTextResponse(str(pid))


async def set_should_exit(request: Request) -> Response:
    """Set the server's flag from a thread, as programs do."""
    import gc

    from uvicorn import Server

    server = next(thing for thing in gc.get_objects() if isinstance(thing, Server))
    threading.Thread(target=setattr, args=(server, "should_exit", True)).start()
    return PlainTextResponse("set")


async def events(request: Request) -> Response:
    from sse_starlette.sse import AppStatus, EventSourceResponse

    if "patient" in request.query_params:
        AppStatus.enable_automatic_graceful_drain = False

    async def endless() -> AsyncIterator[dict[str, str]]:
        while True:
            yield {"data": "tick"}
            await asyncio.sleep(0.1)

    return EventSourceResponse(endless())


def event_stream(body: AsyncIterator[str | bytes]) -> Response:
    return StreamingResponse(body, media_type="text/event-stream")


async def ticks(request: Request) -> Response:
    """An event every 0.1 s, or every `?s=`; each in one piece."""

    async def endless() -> AsyncIterator[str]:
        for number in itertools.count():
            yield f"id: {number}\ndata: {'tick ' * 20}\n\n"
            await asyncio.sleep(seconds(request, 0.1))

    return event_stream(endless())


async def pieces(request: Request) -> Response:
    """Events that come in pieces: half out for most of the time."""

    async def endless() -> AsyncIterator[str]:
        for number in itertools.count():
            for piece in (f"id: {number}\nda", "ta: whole", "\r\n", "\r\n"):
                yield piece
                await asyncio.sleep(0.03)

    return event_stream(endless())


async def rare(request: Request) -> Response:
    """One event, and then nothing happens for a long time."""

    async def endless() -> AsyncIterator[str]:
        yield "data: one\n\n"
        await asyncio.sleep(3600)

    return event_stream(endless())


async def raw_ticks(scope: Scope, receive: Receive, send: Send) -> None:
    """No framework: it looks at nothing but what `send` raises."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await asyncio.sleep(0.05)
    except OSError as exc:
        say(f"raw ticks got {exc!r}")


async def willing(request: Request) -> Response:
    """A stream that may be ended as the drain begins, whatever the policy."""
    drain_notice(request).close_on_drain()
    return await ticks(request)


async def download(request: Request) -> Response:
    """100 MB, at a pace that takes longer than any deadline."""

    async def megabytes() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(MEGABYTE)
            await asyncio.sleep(0.1)

    headers = {"content-length": str(100 * MEGABYTE)} if "length" in request.query_params else {}
    return StreamingResponse(megabytes(), headers=headers, media_type="application/zip")


async def ws_echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as gone:
        say(f"ws disconnected {gone.code}")


async def ws_work(websocket: WebSocket) -> None:
    """Receive, work for a while, reply; and say what was received."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            said = await websocket.receive_text()
            say(f"received {said}")
            await asyncio.sleep(float(websocket.query_params.get("s", 0.02)))
            await websocket.send_text(said)


async def ws_apart(websocket: WebSocket) -> None:
    """Receive in one task; work, and reply, in another."""
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def write() -> None:
        while True:
            said = await queue.get()
            await asyncio.sleep(0.05)
            await websocket.send_text(said)

    writer = asyncio.create_task(write())
    try:
        async for said in websocket.iter_text():
            say(f"received {said}")
            queue.put_nowait(said)
    finally:
        writer.cancel()


async def ws_late(websocket: WebSocket) -> None:
    """Take a while to accept."""
    say("handshake began")
    await asyncio.sleep(float(websocket.query_params.get("s", 1)))
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.receive_text()


async def ws_busy(websocket: WebSocket) -> None:
    """Look at what comes in a second after the file `?until=` is there; `?reply=1`: reply to it."""
    await websocket.accept()
    say("busy began")
    await file_is_made(websocket.query_params["until"])
    await asyncio.sleep(1)
    try:
        while True:
            said = await websocket.receive_text()
            say(f"received {said}")
            if "reply" in websocket.query_params:
                await websocket.send_text(said)
    except WebSocketDisconnect as gone:
        say(f"ws disconnected {gone.code} {gone.reason}")


async def ws_idle(websocket: WebSocket) -> None:
    """Never look at what comes in."""
    await websocket.accept()
    await asyncio.sleep(3600)


async def ws_push(websocket: WebSocket) -> None:
    """Only send, every 50 ms or every `?s=`, and never look at what comes in."""
    await websocket.accept()
    say("push began")
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(float(websocket.query_params.get("s", 0.05)))


async def ws_flood(websocket: WebSocket) -> None:
    """Send more than the kernel takes, whether or not anybody reads."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        for _ in range(64):
            await websocket.send_bytes(bytes(MEGABYTE))


async def misbehave(variable: str) -> None:
    behaviour = os.environ.get(variable, "")
    if behaviour.startswith("sleep"):
        await asyncio.sleep(float(behaviour.split()[1]))
    elif behaviour == "hang":
        await asyncio.sleep(3600)  # lifespan hangs here
    elif behaviour == "block":
        time.sleep(3600)  # noqa: ASYNC251  # lifespan blocks here
    elif behaviour == "raise":
        raise RuntimeError(f"lifespan raises as {variable} says")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    say("lifespan startup")
    await misbehave("APP_STARTUP")
    say("lifespan started")
    yield
    say("lifespan shutdown")
    await misbehave("APP_SHUTDOWN")
    say("lifespan ended")


async def hold_the_gil(request: Request) -> Response:
    """Match as no thread of this process can interrupt: the GIL is not given back."""
    say("gil held")
    re.match(r"(a+)+b", "a" * 64)
    return PlainTextResponse("matched")


async def worker_pid(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


def make_bare_app() -> Starlette:
    return Starlette(
        routes=[
            Route("/", index),
            Route("/pid", worker_pid),
            Route("/gil", hold_the_gil),
            Route("/slow", slow),
            Route("/stream", stream),
            Route("/big", big),
            Route("/echo", echo, methods=["POST"]),
            Route("/early", early, methods=["POST"]),
            Route("/swallow", swallow),
            Route("/block", block),
            Route("/thread", thread),
            Route("/background", background),
            Route("/fail", fail),
            Route("/fork", fork),
            Route("/should_exit", set_should_exit),
            Route("/events", events, methods=["GET", "POST"]),
            Route("/events/ticks", ticks, methods=["GET", "POST"]),
            Route("/events/pieces", pieces, methods=["GET", "POST"]),
            Route("/events/rare", rare, methods=["GET", "POST"]),
            Mount("/events/raw", raw_ticks),
            Route("/events/willing", willing, methods=["GET", "POST"]),
            Route("/download", download),
            WebSocketRoute("/ws/echo", ws_echo),
            WebSocketRoute("/ws/work", ws_work),
            WebSocketRoute("/ws/apart", ws_apart),
            WebSocketRoute("/ws/late", ws_late),
            WebSocketRoute("/ws/busy", ws_busy),
            WebSocketRoute("/ws/idle", ws_idle),
            WebSocketRoute("/ws/push", ws_push),
            WebSocketRoute("/ws/flood", ws_flood),
        ],
        lifespan=lifespan,
    )


def make_app(**paths: Any) -> Starlette:
    app = make_bare_app()
    app.add_middleware(GracefulMiddleware, **{**PATHS, **paths})
    return app


app = make_app()

bare = make_bare_app()
"""The app without this package: it knows nothing of a drain."""


def make_owned_app() -> Starlette:
    """An app with a policy, a drainer and paths of its own; it tracks work of its own as well."""
    drainer = Drainer(DrainPolicy(lame_duck_period=2.5, grace_period=0.7, cancel_period=0.1))
    drainer.add_hook(lambda change: say(f"the app's own hook: {change.phase.value}"))
    app = make_bare_app()
    app.add_middleware(GracefulMiddleware, drainer=drainer, readiness_path="/own")
    return app


owned = make_owned_app()


async def late(scope: Scope, receive: Receive, send: Send) -> None:
    """The app, with the middleware kept from the lifespan for a while."""
    if scope["type"] == "lifespan":
        say("not hooked yet")
        await asyncio.sleep(float(os.environ["APP_BEFORE_HOOK"]))
    inner: ASGIApp = app
    await inner(scope, receive, send)


atexit.register(say, "atexit")
