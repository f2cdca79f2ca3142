"""`StandIn`: the middleware put around an app from outside, which may have it already."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..policy import DrainPolicy
from .exchange import DRAINER_KEY
from .middleware import GracefulMiddleware, hear_stop
from .options import OVERRIDES_KEY, Overrides

if TYPE_CHECKING:
    from .._core.runner import DrainRunner
    from ..types import ASGIApp, Message, Receive, Scope, Send


class OuterMiddleware(GracefulMiddleware):
    """The middleware of an app that may have its own: for one that has, it steps aside.

    Whether it has shows in its lifespan: the app's middleware is called before the app receives
    the first message, or fails for want of a lifespan.

    Args:
        app: the ASGI app.
        overrides: what the operator says. The app's own middleware learns of it as well.

    Raises:
        PolicyError: (a `ValueError`) the probes given do not go together.
    """

    def __init__(self, app: ASGIApp, overrides: Overrides) -> None:
        super().__init__(
            app,
            policy=overrides.policy_over(DrainPolicy()),
            probes=overrides.probes_over(None),
        )
        self._overrides = overrides
        self._aside = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if self._aside:
            return await self.app(scope, receive, send)
        return await super().__call__(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> Any:
        state = scope.setdefault("state", {})
        state[OVERRIDES_KEY] = self._overrides
        hearing: Receive | None = None
        with ExitStack() as stack:

            def look() -> DrainRunner | None:
                self._aside = DRAINER_KEY in state
                return None if self._aside else stack.enter_context(self.serving(scope))

            async def receive_after_the_app_has_shown() -> Message:
                nonlocal hearing
                if hearing is None:
                    hearing = hear_stop(receive, look())
                return await hearing()

            try:
                return await self.app(scope, receive_after_the_app_has_shown, send)
            finally:
                if hearing is None:  # it has no lifespan; the server goes on without
                    look()


def without_lifespan(app: ASGIApp) -> ASGIApp:
    """Return *app* with a lifespan in which nothing happens, and of which it hears nothing.

    `StandIn` is to know of the server before the first request, as of any other.
    """

    async def whole(scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return None

    return whole
