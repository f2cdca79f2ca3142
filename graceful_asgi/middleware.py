"""`GracefulMiddleware`: where ASGI meets the drain. Pure ASGI; no request is kept on `self`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

from .drainer import Drainer
from .edge import NoEdge
from .errors import MisuseError
from .exchange import STATE_KEY, Exchange, HTTPExchange, WebSocketExchange
from .phase import Phase
from .servers import attach

if TYPE_CHECKING:
    from .asgi import ASGIApp, Message, Receive, Scope, Send
    from .policy import DrainPolicy
    from .probes import Probes


class GracefulMiddleware:
    """Drains the app's server when it is told to stop: no request lost, gone by its deadline.

    Add it last, so that it is the outermost: `app.add_middleware(GracefulMiddleware)`.

    Args:
        app: the ASGI app.
        policy: how to drain. None reads it from the environment (`DrainPolicy.from_env`).
        probes: paths that are answered here. None answers none.
        drainer: a drainer made elsewhere, policy included.

    Raises:
        MisuseError: (a `RuntimeError`) both *policy* and *drainer* were given.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        policy: DrainPolicy | None = None,
        probes: Probes | None = None,
        drainer: Drainer | None = None,
    ) -> None:
        if policy is not None and drainer is not None:
            raise MisuseError(
                "GracefulMiddleware got policy= and drainer=; the drainer has a policy of its "
                "own: give Drainer(policy) that policy, or leave out drainer="
            )
        self.app = app
        self.drainer = Drainer(policy) if drainer is None else drainer
        self._probes = probes
        self._shared = drainer is not None
        self._taken = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            make: type[Exchange] = HTTPExchange
        elif scope["type"] == "websocket":
            make = WebSocketExchange
        elif scope["type"] == "lifespan":
            return await self._lifespan(scope, receive, send)
        else:
            return await self.app(scope, receive, send)

        state = scope.setdefault("state", {})
        drainer = state.get(STATE_KEY)
        if isinstance(drainer, Exchange):  # this middleware stands further out as well
            return await self.app(scope, receive, send)
        if drainer is None or drainer.phase is Phase.STOPPED:
            drainer = self._without_lifespan(scope)
        if (
            self._probes is not None
            and make is HTTPExchange
            and await self._probes.answers(drainer, scope, send)
        ):
            return None

        exchange = state[STATE_KEY] = make(drainer, scope, receive, send)
        with exchange:  # counted first, the phase looked at second
            if drainer.phase is not Phase.SERVING and _refused(drainer):
                return await exchange.refuse()
            if exchange.task is None:
                return await self._in_cancel_scope(exchange)
            try:
                return await self.app(scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:
                if not exchange.cancelled or not exchange.uncancel():
                    raise
                if exchange.cut and isinstance(drainer.edge, NoEdge):
                    raise  # an unknown server: it alone can cut the answer, if it sees this
                await exchange.conclude()

    async def _in_cancel_scope(self, exchange: Exchange) -> None:
        # Outside of asyncio there is no task to cancel, and a scope costs what it costs.
        with anyio.CancelScope() as cancel_scope:
            exchange.cancel_with(cancel_scope)
            return await self.app(exchange.scope, exchange.receive, exchange.send)
        await exchange.conclude()

    def _without_lifespan(self, scope: Scope) -> Drainer:
        """Return the drainer of a server that sent no lifespan, found at its first request."""
        if not self._taken or self.drainer.phase is Phase.STOPPED:
            self._taken = True
            attach(self.drainer, scope)
        return self.drainer

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        if STATE_KEY in state:  # this middleware stands further out as well
            return await self.app(scope, receive, send)
        # One app object may be served by two servers at once; then each has its own drain.
        own = self._shared or not self._taken
        drainer = self.drainer if own else Drainer(self.drainer.policy)
        self._taken = True
        state[STATE_KEY] = drainer
        hooked = attach(drainer, scope)

        async def receive_shutdown() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                drainer.stop("lifespan.shutdown", lame_duck=False)
                await drainer.drain(NoEdge())
            return message

        try:
            await self.app(scope, receive if hooked else receive_shutdown, send)
        finally:
            if own:
                self._taken = False
            if not hooked:
                drainer.finish()


def _refused(drainer: Drainer) -> bool:
    """Say whether a request that came while draining gets a 503 in place of an answer."""
    rejected = not drainer.waiting or drainer.policy.new_requests == "reject"
    drainer.arrived(rejected=rejected)
    return rejected
