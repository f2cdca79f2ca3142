"""The middleware around a part of the app only, as `socketio.ASGIApp(sio, app)` has one do it.

`/poll?s=2`, `/poll?until=FILE`, `/download` and the WebSocket `/ws` are answered outside of it;
`/drain` drains.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from graceful_asgi import GracefulMiddleware

from .app import file_is_made, make_bare_app, say
from .endpoint import TOKEN

if TYPE_CHECKING:
    from graceful_asgi.types import Receive, Scope, Send

inner: Any = GracefulMiddleware(make_bare_app(), drain_path="/drain", drain_token=TOKEN)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and scope["path"] == "/ws":
        await session(receive, send)
    elif scope["type"] == "http" and scope["path"] in ("/poll", "/download"):
        asked = parse_qs(scope["query_string"].decode())
        say("outside began")
        if scope["path"] == "/download":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if "until" in asked:
            await file_is_made(asked["until"][0])
        else:
            await asyncio.sleep(float(asked.get("s", ["60"])[0]))  # outside waits here
        say("outside answers")
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
