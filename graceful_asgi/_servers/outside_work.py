"""Counts requests that the middleware does not see, because it wraps only a part of the app.

`socketio.ASGIApp(sio, app)` answers its own requests outside of `app` and its middleware. The
server knows them: each runs in one of its tasks. While a server drains they count as in flight like
any other, so that they are waited for, named when they are stuck, and never called clean when they
are cut.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

from .. import log
from .._core.unavailable import unavailable
from .._core.work import SCOPE_KEY, Work
from .connections import request_of

if TYPE_CHECKING:
    import asyncio

    from .._core.runner import DrainRunner
    from .._core.work import CloseWhen
    from ..report import Kind
    from .touchpoints import Server


class OutsideRequest(Work):
    """A request in flight that only uvicorn knows.

    Args:
        request: uvicorn's object that runs the app (`RequestResponseCycle`): it has the scope, and
            shows how far the response has come.
    """

    __slots__ = ("_request",)

    kind: ClassVar[Kind] = "http"

    def __init__(self, request: Any) -> None:
        self._request = request

    @property
    def method(self) -> str:
        return str(self._request.scope.get("method", ""))

    @property
    def path(self) -> str:
        return str(self._request.scope["path"])

    @property
    def client(self) -> str:
        return ":".join(str(part) for part in self._request.scope.get("client") or ())

    @property
    def progress(self) -> str:
        state = "started" if getattr(self._request, "response_started", False) else "not started"
        return f"response {state}, outside of GracefulMiddleware"

    @property
    def cut(self) -> bool:
        return self._request.response_started and not self._request.response_complete

    @property
    def close_when(self) -> CloseWhen:
        return "at deadline"

    async def close_now(self) -> None:
        """Answer with 503 where no answer has begun: the app is about to be cancelled.

        uvicorn would answer with 500, and log the cancellation with its traceback. The stuck report
        says it in one line.
        """
        self._request.logger = log.MUTED
        if not self._request.response_started:
            start, body = unavailable()
            start["headers"].append((b"connection", b"close"))
            with contextlib.suppress(Exception):  # the connection may have gone
                await self._request.send(start)
                await self._request.send(body)


class OutsideSession(OutsideRequest):
    """A WebSocket session that the middleware does not see. Its protocol object runs the app."""

    __slots__ = ("_drainer",)

    kind: ClassVar[Kind] = "websocket"

    def __init__(self, request: Any, drainer: DrainRunner) -> None:
        super().__init__(request)
        self._drainer = drainer

    @property
    def method(self) -> str:
        return ""

    @property
    def progress(self) -> str:
        return "open, outside of GracefulMiddleware"

    @property
    def cut(self) -> bool:
        return False

    @property
    def close_when(self) -> CloseWhen:
        return "on drain" if self._drainer.policy.websockets == "close" else "at deadline"

    async def close(self, patience_end: float, *, hurried: bool = False) -> None:
        """Close the session with 1012, as uvicorn does: from here no boundary can be seen."""
        await self.close_now()

    async def close_now(self) -> None:
        """Close the session with 1012. The app notices that by its next `receive` or `send`."""
        self._request.logger = log.MUTED
        with contextlib.suppress(Exception):  # uvicorn raises where the peer has closed already
            self._request.shutdown()


class OutsideWork:
    """Finds the requests of a draining server that the middleware does not see. On its loop."""

    def __init__(self, server: Server, drainer: DrainRunner) -> None:
        self._server = server
        self._drainer = drainer
        self._fresh: set[asyncio.Task[None]] = set()
        """Tasks that the middleware had not seen at the last look: they may still reach it."""
        self._known: set[asyncio.Task[None]] = set()
        """Tasks that are counted here, or that the middleware has seen."""
        self._has_warned = False

    def look(self) -> None:
        """Count new requests that have not reached the middleware. Call it every 0.1 s."""
        tasks = self._server.server_state.tasks
        self._known &= tasks
        unknown = tasks - self._known - {work.task for work in self._drainer.in_flight}
        outside = {task for task in unknown if not self._is_seen(task)}
        self._known |= unknown - outside
        for task in outside & self._fresh:
            self._known.add(task)
            self._count(task)
        self._fresh = outside

    def _is_seen(self, task: asyncio.Task[None]) -> bool:
        scope = getattr(request_of(task), "scope", None)
        return scope is None or SCOPE_KEY in scope

    def _count(self, task: asyncio.Task[None]) -> None:
        request, in_flight = request_of(task), self._drainer.in_flight
        is_session = request.scope["type"] == "websocket"
        work = OutsideSession(request, self._drainer) if is_session else OutsideRequest(request)
        in_flight.enter(work)
        work.task = task
        task.add_done_callback(lambda task: in_flight.leave(work))
        self._drainer.close_schedule.add(work)
        if not self._has_warned:
            self._has_warned = True
            log.caution(
                "%s such as %s do not pass through GracefulMiddleware: %s. Put the middleware "
                "around the whole app: app = GracefulMiddleware(app)",
                "WebSockets" if is_session else "requests",
                work.path if is_session else f"{work.method} {work.path}",
                "a drain closes them with 1012, perhaps in the middle of a reply"
                if is_session
                else "a drain waits for them, but their responses have no `Connection: close`",
            )
