"""`drain_notice` and `DrainNotice`: show a request handler whether its server drains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._core.work import SCOPE_KEY
from ..errors import MisuseError
from ..phase import Phase
from .exchange import Exchange

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from .._core.runner import DrainRunner
    from ..types import Scope

    ConnectionOrScope = HTTPConnection | Scope
else:
    try:
        # FastAPI hands the connection to a dependency whose parameter has this type, and looks
        # the type up at run time.
        from starlette.requests import HTTPConnection as ConnectionOrScope
    except ImportError:
        ConnectionOrScope = object


class DrainNotice:
    """A handler's view of its server's drain."""

    __slots__ = ("_drainer", "_exchange")

    def __init__(self, drainer: DrainRunner, exchange: Exchange | None = None) -> None:
        self._drainer = drainer
        self._exchange = exchange

    @property
    def draining(self) -> bool:
        """True once the server has begun to drain. Safe from any thread."""
        return self._drainer.phase is not Phase.SERVING

    async def wait(self) -> None:
        """Wait until the server begins to drain; return at once when it has."""
        await self._drainer.wait_begun()

    def time_left(self) -> float:
        """Return the seconds until work in flight is cancelled; infinite while no stop has come.

        Safe from any thread.
        """
        return self._drainer.time_left()

    def close_on_drain(self) -> None:
        """Allow a drain to close this response or WebSocket as it begins, or now if one has begun.

        An event stream (`text/event-stream`) is completed between two events. A WebSocket is closed
        with 1012 when its handler waits for the next message or owes no reply. The closes of a
        server's clients are spread over the lame duck. Use it if the client connects again by
        itself. `event_streams="close"` and `websockets="close"` do the same for all of them.

        A response of another type is left alone: cut short, it would look complete. Call it before
        the response has begun, or at any later time. Idempotent; safe from any thread.
        """
        if self._exchange is not None:  # else the call is over
            self._exchange.close_on_drain()


def drain_notice(connection: ConnectionOrScope) -> DrainNotice:
    """Return the drain notice of a request, a WebSocket or an ASGI scope.

    Usable as a FastAPI dependency: `notice: DrainNotice = Depends(drain_notice)`.

    Raises:
        MisuseError: (a `RuntimeError`) the request did not come through `GracefulMiddleware`, or
            *connection* is none of these.
    """
    scope: Any = getattr(connection, "scope", connection)
    if not isinstance(scope, Mapping):
        raise MisuseError(
            f"drain_notice({connection!r}): give it a request, a WebSocket or an ASGI scope"
        )
    held = scope.get(SCOPE_KEY)
    if held is None:
        raise MisuseError(
            f"drain_notice() of {scope.get('path')!r}: the request did not come through "
            "GracefulMiddleware; add app.add_middleware(GracefulMiddleware)"
        )
    return DrainNotice(held.drainer, held if isinstance(held, Exchange) else None)
