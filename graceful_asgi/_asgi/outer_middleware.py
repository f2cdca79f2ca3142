"""`OuterMiddleware`: wraps an app for `graceful-asgi run`, unless it has the middleware already."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .middleware import GracefulMiddleware, fail_start
from .precedence import COMMAND_LINE_KEY, CommandLine, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..types import ASGIApp, Message, Receive, Scope, Send


class OuterMiddleware(GracefulMiddleware):
    """A middleware that steps aside if the app has one of its own.

    The lifespan shows whether it has: the app's middleware takes the command line before the app
    receives or sends its first message, or fails because it has no lifespan.

    Args:
        app: the ASGI app.
        command_line: values of options, each of them checked, that the operator gave. The app's
            own middleware gets them as well.

    Raises:
        PolicyError: (a `ValueError`) the environment gives what is not allowed.
    """

    def __init__(self, app: ASGIApp, command_line: Mapping[str, Any]) -> None:
        super().__init__(app)
        self._command_line = command_line
        self._steps_aside = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if self._steps_aside:
            return await self.app(scope, receive, send)
        return await super().__call__(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> Any:
        state = scope.setdefault("state", {})
        given = state[COMMAND_LINE_KEY] = CommandLine(self._command_line)
        settings = resolve(self._code, os.environ, self._command_line, before_code=True)
        if settings.fault is not None:
            await fail_start(settings.fault, receive, send)
        async with AsyncExitStack() as stack:
            looked = False
            inner_receive, inner_send = receive, send

            async def look() -> None:
                nonlocal looked, inner_receive, inner_send
                if looked:
                    return
                looked = True
                del state[COMMAND_LINE_KEY]
                self._steps_aside = given.is_taken
                if not self._steps_aside:
                    settings = resolve(self._code, os.environ, self._command_line)
                    if settings.fault is not None:
                        await fail_start(settings.fault, receive, send)
                    serving = self.serving(scope, receive, send, settings)
                    inner_receive, inner_send = await stack.enter_async_context(serving)

            async def look_and_receive() -> Message:
                await look()
                return await inner_receive()

            async def look_and_send(message: Message) -> None:
                await look()
                await inner_send(message)

            try:
                return await self.app(scope, look_and_receive, look_and_send)
            finally:
                await look()  # it has no lifespan; the server goes on without


def without_lifespan(app: ASGIApp) -> ASGIApp:
    """Return *app* with an empty lifespan, which *app* itself does not see.

    In that lifespan `OuterMiddleware` finds the server, before the first request.
    """

    async def whole(scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return None

    return whole
