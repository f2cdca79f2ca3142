"""`ServerRecord`: what the middleware knows about each server that runs its app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._core.runner import DrainRunner
    from .._core.server_adapter import StoppableServer
    from ..errors import GracefulError
    from .endpoints import Endpoints

STATE_KEY: Final = "graceful_asgi"
"""The key in the lifespan's `scope["state"]` that holds the record while the app starts: a second
middleware further in sees it, and leaves the server to the first. Afterwards only a second server
of the same app keeps its record there. A request without the key belongs to the first server."""


class ServerRecord(str):
    """One server: its drain, and the paths that are answered for it.

    It is a string, because the state that holds it belongs to the app, and apps give their state to
    `copy.deepcopy` and `json.dumps`.
    """

    __slots__ = ("drainer", "endpoints", "fault", "is_provisional", "server")

    def __new__(cls, *_: object, **__: object) -> Self:
        return super().__new__(cls, "server")

    def __init__(
        self, drainer: DrainRunner, endpoints: Endpoints, *, is_provisional: bool = False
    ) -> None:
        self.drainer = drainer
        self.endpoints = endpoints if endpoints else None
        """None if no path is answered, so that each request has only that to check."""
        self.fault: GracefulError | None = None
        """The error for which the server must not start."""
        self.server: StoppableServer | None = None
        """The server; None if it is not known here."""
        self.is_provisional = is_provisional
        """True if the server was found at a request: its end does not show in a lifespan."""

    @property
    def is_passive(self) -> bool:
        """True if only the end of the lifespan shows a stop: the server is not known here."""
        return self.server is None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)
