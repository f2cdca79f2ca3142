"""The middleware around a part of the app only, as `socketio.ASGIApp(sio, app)` has one do it.

`/poll?s=2`, `/download` and the WebSocket `/ws` are answered outside of it; `/drain` drains.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from graceful_asgi import GracefulMiddleware

from .app import make_bare_app, say
from .endpoint import TOKEN

if TYPE_CHECKING:
    from graceful_asgi.types import Receive, Scope, Send

inner: Any = GracefulMiddleware(make_bare_app(), drain_path="/drain", drain_token=TOKEN)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and scope["path"] == "/ws":
        await session(receive, send)
    elif scope["type"] == "http" and scope["path"] in ("/poll", "/download"):
        seconds = float(scope["query_string"].partition(b"=")[2] or 60)
        say("outside began")
        if scope["path"] == "/download":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.sleep(seconds)  # outside waits here
        if scope["path"] == "/poll":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"polled"})
    else:
        await inner(scope, receive, send)


async def session(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    say("outside began")
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})
    say(f"outside ended {message['code']}")
