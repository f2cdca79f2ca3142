"""`GracefulMiddleware`: where ASGI meets the drain. Pure ASGI; no request is kept on `self`."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import anyio

from .. import log
from .._core.drainer import Drainer, as_drainer, runner_of
from .._core.runner import DrainRunner
from .._core.server_adapter import PassiveAdapter
from .._core.work import SCOPE_KEY
from ..errors import ControlError, GracefulError
from ..event_loop import in_event_loop, running_task
from ..phase import Phase
from .http import HTTPExchange
from .position import check_position
from .precedence import COMMAND_LINE_KEY, CodeOptions, CommandLine, misspelt, resolve
from .server_record import STATE_KEY, ServerRecord
from .websocket import WebSocketExchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from typing_extensions import Unpack

    from ..phase import PhaseChange
    from ..policy import DrainPolicy, PolicyFields
    from ..types import ASGIApp, Message, Receive, Scope, Send
    from .endpoints import Ready
    from .exchange import Exchange
    from .precedence import ServerSettings

Address: TypeAlias = tuple[Any, ...]
"""The `server` of a scope: the host and the port that a request came to."""

MOST_ADDRESSES: Final = 100
"""A server that listens on all addresses of a machine may be reached at a great many of them."""


class GracefulMiddleware:
    """Drain the app's server when it is told to stop: no request lost, gone by its deadline.

    Add it last, so that it is the outermost: `app.add_middleware(GracefulMiddleware)`.

    The command line of `graceful-asgi run` and `GRACEFUL_<NAME>` in the environment win over what
    is given here, option by option.

    Args:
        app: the ASGI app.
        policy: how to drain, as a whole.
        drainer: a drainer to use elsewhere as well. Its policy counts.
        ready: a callable without arguments, plain or async, that readiness asks while serving. A
            true value means ready; any other value, or an exception, is answered by 503. It runs
            on the event loop: a plain one must not block.
        readiness_path: answers 200 while serving, and 503 from the beginning of a drain on.
        liveness_path: answers 200 from the start of the server to its end.
        drain_path: begins a drain in every process of the server, and answers once they are
            drained; for a preStop hook. Needs `drain_token`.
        drain_token: the secret that a request to `drain_path` must carry, of 16 characters or more.
        **policy_fields: the fields of `DrainPolicy`, in place of *policy* or the policy of
            *drainer*.

    Raises:
        PolicyError: (a `ValueError`) an option is unknown, or its value is not allowed.
        MisuseError: (a `RuntimeError`) more than one of *policy*, *drainer* and *policy_fields*
            was given.

    In a running event loop neither is raised. There a server is starting, which would take an
    error for an app that has no lifespan, and serve it broken. The start of the server fails.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        policy: DrainPolicy | None = None,
        drainer: Drainer | None = None,
        ready: Ready | None = None,
        readiness_path: str | None = None,
        liveness_path: str | None = None,
        drain_path: str | None = None,
        drain_token: str | None = None,
        **policy_fields: Unpack[PolicyFields],
    ) -> None:
        endpoints = {
            "readiness_path": readiness_path,
            "liveness_path": liveness_path,
            "drain_path": drain_path,
            "drain_token": drain_token,
        }
        self.app = app
        self._code = CodeOptions.read(
            {
                **{name: path for name, path in endpoints.items() if path is not None},
                **policy_fields,
            },
            policy=policy,
            drainer=drainer,
            ready=ready,
        )
        settings = resolve(self._code, os.environ)
        # Starlette makes its middleware in the first call of the app, which is the lifespan's.
        if settings.fault is not None and not in_event_loop():
            raise settings.fault
        self._given = isinstance(drainer, Drainer)
        self.drainer = drainer if isinstance(drainer, Drainer) else Drainer(settings.policy)
        self._command_line: Mapping[str, Any] = {}
        self._record: ServerRecord | None = None
        """The record of the server that runs the app; of the first server if there are several."""
        self._has_several = False
        """True once requests are told apart: a second server has run the app, or one without a
        lifespan has, which another may follow unseen."""
        self._found: dict[Address, ServerRecord] = {}
        """The records of servers without a lifespan, by the addresses that requests came to."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "http":
            make: type[Exchange] = HTTPExchange
        elif scope["type"] == "websocket":
            make = WebSocketExchange
        elif scope["type"] == "lifespan":
            return await self._lifespan(scope, receive, send)
        else:
            return await self.app(scope, receive, send)

        if SCOPE_KEY in scope:  # this middleware stands further out as well
            return await self.app(scope, receive, send)
        record = self._record
        if record is None or self._has_several:
            record = self._known_record(scope) or await self._look_for_record(scope)
        if (
            record.endpoints is not None
            and make is HTTPExchange
            and (answer := record.endpoints.find(scope)) is not None
        ):
            scope[SCOPE_KEY] = record  # else `OutsideWork` would count it as not seen, and wait
            return await answer(record.drainer, scope, send)

        # No context manager and no call but what must be: each would be a tenth of what this costs.
        exchange = scope[SCOPE_KEY] = make()
        exchange.drainer = drainer = record.drainer
        exchange.scope, exchange._receive, exchange._send = scope, receive, send
        exchange.start = exchange.last = exchange.sending = None
        in_flight = drainer.in_flight
        exchange.began = in_flight.last_tick or in_flight.clock()
        app = self.app
        try:
            exchange.task = running_task()
        except RuntimeError:  # trio
            exchange.task, app = None, self._in_cancel_scope
        works = in_flight.works
        works.add(exchange)  # counted first, the phase looked at second
        try:
            if not drainer.serving and _refuses(drainer, exchange):
                return await exchange.refuse()
            try:
                returned = await app(scope, exchange.receive, exchange.send)
            except Exception as exc:
                if exchange.cancelled and exchange.is_unanswered:
                    await exchange.conclude()
                if not exchange.excuses(exc):
                    raise
                returned = None
                log.detail("%s raised because it was closed: %r", exchange.path, exc)
            if not drainer.serving:
                await exchange.settle()
            return returned
        except asyncio.CancelledError:
            if exchange.answered_for_app:  # the loop ends, and with it an app that has not
                return None
            if not exchange.cancelled or not exchange.uncancel():
                raise
            await exchange.conclude()
        finally:
            works.discard(exchange)
            scope[SCOPE_KEY] = record
            if in_flight.on_leave is not None:
                in_flight.on_leave(exchange)

    async def _in_cancel_scope(self, scope: Scope, receive: Receive, send: Send) -> Any:
        # Outside of asyncio there is no task to cancel. On asyncio a scope would cost too much.
        exchange: Exchange = scope[SCOPE_KEY]
        with anyio.CancelScope() as cancel_scope:
            exchange.cancel_with(cancel_scope)
            return await self.app(scope, receive, send)
        await exchange.conclude()
        return None

    # The servers

    def _known_record(self, scope: Scope) -> ServerRecord | None:
        """Return the record of the server that *scope* comes from; None if it is to be looked for.

        Where the lifespan is off, each request calls this: no coroutine.
        """
        state = scope.get("state") or {}
        record: ServerRecord | None = state.get(STATE_KEY, self._record)
        if record is None or not record.is_provisional:
            return record
        return self._found.get(_address_of(scope))

    async def _look_for_record(self, scope: Scope) -> ServerRecord:
        record = self._record
        if record is None:
            return await self._find_server(scope)
        from .._servers.finder import find_server  # loaded when the first was found

        # A second server of the app, or another address of the first.
        if len(self._found) < MOST_ADDRESSES and find_server(scope) is not None:
            return await self._find_server(scope)
        return record

    def _drainer_for(self, settings: ServerSettings, is_first: bool) -> tuple[DrainRunner, bool]:
        """Return the drainer for a server, and True if no other server of this app has it."""
        # Each of several servers of one app drains by itself, unless the code has given a drainer.
        if is_first or self._given:
            return runner_of(self.drainer), is_first
        return DrainRunner(settings.policy), True

    async def _find_server(self, scope: Scope) -> ServerRecord:
        """Return the record of a server that has sent no lifespan, found at a request."""
        settings = resolve(self._code, os.environ, self._command_line)
        is_first = self._record is None
        drainer, anew = self._drainer_for(settings, is_first)
        record = ServerRecord(drainer, settings.endpoints, is_provisional=True)
        # Before the await: the next request must not look as well.
        self._record = self._record or record
        self._found[_address_of(scope)] = record
        await self._attach(record, scope, settings, anew=anew)
        # No lifespan reaches the middleware, so there is no start that could fail.
        for fault in settings.faults:
            log.refused("ignored: %s", fault)
        if record.fault is not None:
            log.refused("the server is not hooked: %s", record.fault)
        if record.drainer.phase is Phase.STOPPED:  # a late request: the server is about to end
            self._forget(record)
            return record
        if is_first and record.drainer is not drainer:  # the server was hooked already
            self.drainer = as_drainer(record.drainer)

        def forget(change: PhaseChange) -> None:
            if change.phase is Phase.STOPPED:
                record.drainer.notifier.hooks.remove(forget)
                self._forget(record)

        if not record.is_passive:  # the end of a passive server cannot be seen
            as_drainer(record.drainer).add_hook(forget)
            self._has_several = True
        return record

    def _forget(self, record: ServerRecord) -> None:
        """Forget a server without a lifespan, which has stopped."""
        for address in [address for address, found in self._found.items() if found is record]:
            del self._found[address]
        if self._record is record:
            self._record = next(iter(self._found.values()), None)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> Any:
        state = scope.get("state") or {}
        given: CommandLine | None = state.get(COMMAND_LINE_KEY)
        if given is not None:
            self._command_line = given.values
        settings = resolve(self._code, os.environ, self._command_line)
        if settings.fault is not None:
            await fail_start(settings.fault, receive, send)
        outer = state.get(STATE_KEY)
        if outer is not None and outer.drainer.phase is not Phase.STOPPED:
            # The same middleware is further out as well: the outer one has the drain.
            if unused := self._code.names:
                log.caution(
                    "GracefulMiddleware is in this app twice, and the options of the inner one "
                    "have no effect: give %s to the outer one",
                    ", ".join(unused),
                )
            return await self.app(scope, receive, send)
        if given is not None:
            given.is_taken = True
        async with self.serving(scope, receive, send, settings) as (inner_receive, inner_send):
            if settings.endpoints.ready is not None and settings.endpoints.readiness_path is None:
                log.caution("ready= has no effect without readiness_path")
            check_position(scope, settings.endpoints.paths)
            return await self.app(scope, inner_receive, inner_send)

    @asynccontextmanager
    async def serving(
        self, scope: Scope, receive: Receive, send: Send, settings: ServerSettings
    ) -> AsyncIterator[tuple[Receive, Send]]:
        """Drain the server of a lifespan, for the length of a block.

        Yield the `receive` and `send` with which to call the app.
        """
        state = scope.get("state")
        is_first = self._record is None or (self._record.is_provisional and self._record.is_passive)
        drainer, anew = self._drainer_for(settings, is_first)
        record = ServerRecord(drainer, settings.endpoints)
        if is_first:
            self._record = record
        else:
            self._has_several = True
        try:
            await self._attach(record, scope, settings, anew=anew)
            if state is not None:
                state[STATE_KEY] = record
            if record.fault is not None:
                await fail_start(record.fault, receive, send)
            yield _drain_before_shutdown(receive, record), self._note_start(send, scope, record)
        finally:
            if record.is_passive:
                record.drainer.finish()
            if self._record is record:
                self._record = None
            if state is not None:
                state.pop(STATE_KEY, None)

    async def _attach(
        self, record: ServerRecord, scope: Scope, settings: ServerSettings, *, anew: bool
    ) -> None:
        """Hook the server that *scope* comes from. An error here does not fail the app's start."""
        try:
            # Half of this package is about servers. A program that only imports it (a test, a
            # worker's parent, a migration) does not wait for that half; a stop finds it loaded.
            from .._servers import attach

            if anew:
                record.drainer.use(settings.policy)
            hook = await attach(
                record.drainer,
                scope,
                anew=anew,
                has_endpoint=settings.endpoints.drain_path is not None,
                origins=settings.origins,
            )
        except ControlError as error:
            record.fault = error
        except Exception:
            log.failed("the server cannot be hooked")
            log.passive("because of the error above", settings.origins)
        else:
            if hook is not None:
                record.drainer, record.server = hook.drainer, hook
            if unknown := misspelt(os.environ):
                log.caution("no option has this name, so it has no effect: %s", ", ".join(unknown))

    def _note_start(self, send: Send, scope: Scope, record: ServerRecord) -> Send:
        """Return *send*, which notes that the server has started, or has failed to."""

        async def send_startup(message: Message) -> None:
            kind = message["type"]
            if kind == "lifespan.startup.complete" and record is self._record:
                # Requests come from now on. The state that they get belongs to the app, and a
                # request of the first server needs no key in it.
                (scope.get("state") or {}).pop(STATE_KEY, None)
            await send(message)
            if kind == "lifespan.startup.complete" and record.is_passive:
                record.drainer.notifier.server_opened()  # no hook calls it for a passive server
            elif kind == "lifespan.startup.failed":
                record.drainer.notifier.start_failed(record.server)

        return send_startup


def _drain_before_shutdown(receive: Receive, record: ServerRecord) -> Receive:
    """Return *receive*, which drains before it passes on the shutdown of a passive server."""
    if not record.is_passive:
        return receive
    drainer = record.drainer

    async def receive_shutdown() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            drainer.stop("lifespan.shutdown", lame_duck=False)
            try:
                await drainer.drain(PassiveAdapter())
            except Exception:
                log.failed("the drain failed; the app is shut down all the same")
        return message

    return receive_shutdown


async def fail_start(error: GracefulError, receive: Receive, send: Send) -> NoReturn:
    """Fail the start of the server. To raise is not enough: that means "no lifespan" to uvicorn."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": f"graceful_asgi: {error}"})
    raise error


def _address_of(scope: Scope) -> Address:
    return tuple(scope.get("server") or ())


def _refuses(drainer: DrainRunner, exchange: Exchange) -> bool:
    """Note a request that came while draining; return True if it gets a 503."""
    drainer.arrived(exchange)
    return not drainer.state.waiting or drainer.policy.new_requests == "reject"
