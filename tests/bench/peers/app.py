"""An ASGI app without a framework: `plain` as it is, `graceful` with the middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from graceful_asgi import DrainPolicy, GracefulMiddleware

if TYPE_CHECKING:
    from graceful_asgi.types import Receive, Scope, Send

LAME_DUCK_PERIOD = 2.0


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once; ``/slow`` after 2 s; ``/stream`` in pieces, over 2 s."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/slow":
        await anyio.sleep(2)
    pieces = 20 if scope["path"] == "/stream" else 1
    headers = [(b"content-type", b"text/plain")]
    if pieces == 1:
        headers.append((b"content-length", b"2"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in range(pieces):
        more = piece < pieces - 1
        await send({"type": "http.response.body", "body": b"ok", "more_body": more})
        if more:
            await anyio.sleep(0.1)


graceful = GracefulMiddleware(plain, policy=DrainPolicy(lame_duck_period=LAME_DUCK_PERIOD))

TOKEN = "a token of the bench"
drainable = GracefulMiddleware(
    plain,
    policy=DrainPolicy(lame_duck_period=LAME_DUCK_PERIOD),
    readiness_path="/readyz",
    drain_path="/drain",
    drain_token=TOKEN,
)
