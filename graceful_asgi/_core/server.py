"""What a drain asks of the server it happens in. Only the contract lives here."""

from __future__ import annotations

from typing import Protocol


class ServerAdapter(Protocol):
    """The four verbs by which a drain acts on a server."""

    async def close_listener(self) -> None:
        """Stop accepting, without losing a connection."""

    def is_idle(self) -> bool:
        """Say whether nothing is open or running that the registry does not know of."""

    def cut_answers(self) -> int:
        """Abort what has a part of its answer out, so that it cannot look complete.

        Returns how many of those answers no work in flight stands for (slow readers).
        """

    def cut_connections(self) -> None:
        """Abort every connection that is left."""


class PassiveAdapter:
    """The edge of a server this package does not know: nothing to act on, nothing changed."""

    async def close_listener(self) -> None:
        """Leave it: such a server has closed it before it says `lifespan.shutdown`."""

    def is_idle(self) -> bool:
        """Rely on the registry alone."""
        return True

    def cut_answers(self) -> int:
        """Leave them to the server."""
        return 0

    def cut_connections(self) -> None:
        """Leave them to the server."""
