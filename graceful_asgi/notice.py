"""What a request handler sees of a drain: `drain_notice` and `DrainNotice`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import MisuseError
from .exchange import COUNTED_KEY, DRAINER_KEY
from .phase import Phase

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from .asgi import Scope
    from .drainer import Drainer

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

    __slots__ = ("_drainer",)

    def __init__(self, drainer: Drainer) -> None:
        self._drainer = drainer

    @property
    def draining(self) -> bool:
        """Whether the server has begun to drain. Safe from any thread."""
        return self._drainer.phase is not Phase.SERVING

    async def wait(self) -> None:
        """Wait until the server begins to drain; return at once when it has."""
        await self._drainer.wait_begun()

    def time_left(self) -> float:
        """Seconds until work in flight is cancelled; infinite while no stop has come.

        Safe from any thread.
        """
        return self._drainer.time_left()


def drain_notice(connection: ConnectionOrScope) -> DrainNotice:
    """Return the drain notice of a request, a WebSocket or an ASGI scope.

    Usable as a FastAPI dependency: `notice: DrainNotice = Depends(drain_notice)`.

    Raises:
        MisuseError: (a `RuntimeError`) the request did not come through `GracefulMiddleware`.
    """
    scope: Any = getattr(connection, "scope", connection)
    if COUNTED_KEY not in scope:
        raise MisuseError(
            f"drain_notice() of {scope.get('path')!r}: the request did not come through "
            "GracefulMiddleware; add app.add_middleware(GracefulMiddleware)"
        )
    return DrainNotice(scope["state"][DRAINER_KEY])
