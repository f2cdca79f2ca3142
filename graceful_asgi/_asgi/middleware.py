"""`GracefulMiddleware`: where ASGI meets the drain. Pure ASGI; no request is kept on `self`."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from .. import log
from .._core.drainer import Drainer, as_drainer, runner_of
from .._core.runner import DrainRunner
from .._core.server import PassiveAdapter
from .._servers import attach
from ..errors import ClosedError, ControlError, MisuseError
from ..phase import Phase
from .exchange import DRAINER_KEY, EXCHANGE_KEY, SERVING, Exchange
from .http import HTTPExchange
from .options import OVERRIDES_KEY, Overrides
from .websocket import WebSocketExchange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..policy import DrainPolicy
    from ..types import ASGIApp, Message, Receive, Scope, Send
    from .health import Probes


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
        self._given = drainer is not None
        self._servers = 0
        """How many servers have this drainer: one that starts alone starts anew."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "http":
            make: type[Exchange] = HTTPExchange
        elif scope["type"] == "websocket":
            make = WebSocketExchange
        elif scope["type"] == "lifespan":
            return await self._start(scope, receive, send)
        else:
            return await self.app(scope, receive, send)

        state = scope.get("state")
        if state is None:
            state = scope["state"] = {}
        if EXCHANGE_KEY in scope:  # this middleware stands further out as well
            return await self.app(scope, receive, send)
        drainer = state.get(DRAINER_KEY)
        if drainer is None:
            drainer = state[DRAINER_KEY] = self._without_lifespan(scope)
        if (
            self._probes is not None
            and make is HTTPExchange
            and await self._probes.answers(drainer, scope, send)
        ):
            return None

        exchange = scope[EXCHANGE_KEY] = make(drainer, scope, receive, send)
        # No context manager: that alone would be a seventh of what a request costs here.
        drainer.in_flight.works.add(exchange)  # counted first, the phase looked at second
        app = self.app if exchange.task is not None else self._in_cancel_scope
        returned = None
        try:
            if drainer.phase is not SERVING and _refuses(drainer, exchange):
                return await exchange.refuse()
            try:
                returned = await app(scope, exchange.receive, exchange.send)
            except Exception as exc:
                if not (exchange.was_closed and ClosedError.is_behind(exc)):
                    raise
                log.detail("%s fell over the news of its end: %r", exchange.path, exc)
            if drainer.phase is not SERVING:
                await exchange.settle()
            return returned
        except asyncio.CancelledError:
            if not exchange.cancelled or not exchange.uncancel():
                raise
            await exchange.conclude()
        finally:
            drainer.in_flight.leave(exchange)
            scope[EXCHANGE_KEY] = None

    async def _in_cancel_scope(self, scope: Scope, receive: Receive, send: Send) -> Any:
        # Outside of asyncio there is no task to cancel, and a scope costs what it costs.
        exchange: Exchange = scope[EXCHANGE_KEY]
        with anyio.CancelScope() as cancel_scope:
            exchange.cancel_with(cancel_scope)
            return await self.app(scope, receive, send)
        await exchange.conclude()
        return None

    def _without_lifespan(self, scope: Scope) -> DrainRunner:
        """Return the drainer of a server that sent no lifespan, found at a request of its."""
        if self._servers == 0 or self.drainer.phase is Phase.STOPPED:
            self._servers = 1
            hook = attach(
                runner_of(self.drainer), scope, anew=True, has_endpoint=self._has_endpoint
            )
            if hook is not None:
                self.drainer = as_drainer(hook.drainer)
        return runner_of(self.drainer)

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> Any:
        try:
            return await self._lifespan(scope, receive, send)
        except ControlError as error:  # raised, it would mean an app that has no lifespan
            return await send({"type": "lifespan.startup.failed", "message": str(error)})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if DRAINER_KEY in (scope.get("state") or ()):  # it stands further out as well
            return await self.app(scope, receive, send)
        with self.serving(scope) as passive:
            drainer = passive or scope["state"][DRAINER_KEY]
            receive = hear_stop(receive, passive)
            send = hear_start(send, drainer, passive=passive is not None)
            return await self.app(scope, receive, send)

    @property
    def _has_endpoint(self) -> bool:
        return self._probes is not None and self._probes.drain is not None

    @contextmanager
    def serving(self, scope: Scope) -> Iterator[DrainRunner | None]:
        """Drain the server that *scope* is the lifespan of, for a block. For the middleware.

        Yields the drainer where nothing but that lifespan tells it of a stop.
        """
        state = scope.get("state")
        if state is None:
            state = {}
        # One app object may be served by two servers at once; then each has its own drain.
        first = self._servers == 0
        own = self._given or first
        self._servers += own
        try:
            drainer = runner_of(self.drainer) if own else DrainRunner(self.drainer.policy)
            if OVERRIDES_KEY in state:
                overrides: Overrides = state[OVERRIDES_KEY]
                drainer.use(overrides.policy_over(drainer.policy))
                self._probes = overrides.probes_over(self._probes)
            hook = attach(drainer, scope, anew=first or not own, has_endpoint=self._has_endpoint)
            state[DRAINER_KEY] = drainer = drainer if hook is None else hook.drainer
            try:
                yield drainer if hook is None else None
            finally:
                if hook is None:
                    drainer.finish()
        finally:
            self._servers -= own


def hear_stop(receive: Receive, drainer: DrainRunner | None) -> Receive:
    """Return *receive*, which drains as it brings the end where there is a *drainer*."""
    if drainer is None:
        return receive

    async def receive_shutdown() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            drainer.stop("lifespan.shutdown", lame_duck=False)
            await drainer.drain(PassiveAdapter())
        return message

    return receive_shutdown


def hear_start(send: Send, drainer: DrainRunner, *, passive: bool) -> Send:
    """Return *send*, which tells the *drainer* how the start has come out: that the server listens
    where it is *passive*, and else nobody says so, and that it has failed."""

    async def send_startup(message: Message) -> None:
        await send(message)
        if message["type"] == "lifespan.startup.complete" and passive:
            drainer.note_open()
        elif message["type"] == "lifespan.startup.failed":
            drainer.note_failure()

    return send_startup


def _refuses(drainer: DrainRunner, exchange: Exchange) -> bool:
    """Say whether what came while draining gets a 503 in place of an answer."""
    drainer.arrived(exchange)
    return not drainer.waiting or drainer.policy.new_requests == "reject"
