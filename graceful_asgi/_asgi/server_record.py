"""What the middleware keeps of each server that its app is served by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._core.runner import DrainRunner
    from ..errors import GracefulError
    from .health import Endpoints

STATE_KEY: Final = "graceful_asgi"
"""Where the lifespan's `scope["state"]` holds the record while the app starts: the same middleware
further in leaves the server to this one. Afterwards only the records of second servers stay there:
without a key in its state a request belongs to the first."""


class ServerRecord(str):
    """One server: its drain, and the paths that are answered for it.

    To whoever copies or dumps the state that holds it, it is a string: the state of a lifespan is
    the app's, and apps give it to `copy.deepcopy` and to `json.dumps`.
    """

    __slots__ = ("drainer", "endpoints", "fault", "is_passive", "is_provisional")

    def __new__(cls, *_: object, **__: object) -> Self:
        return super().__new__(cls, "server")

    def __init__(
        self, drainer: DrainRunner, endpoints: Endpoints, *, is_provisional: bool = False
    ) -> None:
        self.drainer = drainer
        self.endpoints = endpoints if endpoints else None
        """None where no path is answered: each request looks."""
        self.fault: GracefulError | None = None
        """Why the server must not start."""
        self.is_passive = True
        """Whether nothing but the end of the lifespan tells of a stop."""
        self.is_provisional = is_provisional
        """Whether it was found at a request: nothing says when such a server has ended."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)
