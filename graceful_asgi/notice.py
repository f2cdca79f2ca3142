"""What a request handler sees of a drain: `drain_notice` and `DrainNotice`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import MisuseError
from .exchange import STATE_KEY, Exchange
from .phase import Phase

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from .asgi import Scope

    ConnectionOrScope = HTTPConnection | Scope
else:
    try:
        # FastAPI hands the connection to a dependency whose parameter has this type, and looks
        # the type up at run time.
        from starlette.requests import HTTPConnection as ConnectionOrScope
    except ImportError:
        ConnectionOrScope = object


class DrainNotice:
    """A handler's view of the drain. Belongs to one request or WebSocket, and to its loop."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def draining(self) -> bool:
        """Whether the server has begun to drain."""
        return self._exchange.drainer.phase is not Phase.SERVING

    async def wait(self) -> None:
        """Wait until the server begins to drain; return at once when it has."""
        await self._exchange.drainer.wait_begun()

    def time_left(self) -> float:
        """Seconds until this work is cancelled; infinite while no stop has come."""
        return self._exchange.drainer.time_left()


def drain_notice(connection: ConnectionOrScope) -> DrainNotice:
    """Return the drain notice of a request, a WebSocket or an ASGI scope.

    Usable as a FastAPI dependency: `notice: DrainNotice = Depends(drain_notice)`.

    Raises:
        MisuseError: (a `RuntimeError`) the request did not come through `GracefulMiddleware`.
    """
    scope: Any = getattr(connection, "scope", connection)
    exchange = (scope.get("state") or {}).get(STATE_KEY)
    if not isinstance(exchange, Exchange):
        raise MisuseError(
            f"drain_notice() of {scope.get('path')!r}: the request did not come through "
            "GracefulMiddleware; add app.add_middleware(GracefulMiddleware)"
        )
    return DrainNotice(exchange)
