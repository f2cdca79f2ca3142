"""Contracts between a drain and the server it happens in. Nothing here acts.

A drain acts on the server through a `ServerAdapter`. The adapter says what happens to the server:
to `ServerEvents`. Whoever wants the server to end says so to `StoppableServer`, which stops the
drain: a stop goes in one direction only, from the server to its drain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..phase import PhaseChange


class ServerEvents(Protocol):
    """Told what happens to a server, for as long as it is there.

    The methods are called on the event loop and must not wait. At the hard deadline, with the loop
    stuck, the last calls come from another thread.
    """

    def opened(self) -> None:
        """Take note that the server listens."""

    def phase_changed(self, change: PhaseChange) -> None:
        """Take note of a phase change. They come in order; the last one leads to STOPPED."""

    def closed(self) -> None:
        """Release everything: the server has stopped, or has failed to start. Called once."""


class StoppableServer(Protocol):
    """A server, to those who may end it without a signal."""

    def stop(self, reason: str, *, lame_duck: bool = True, failed: bool = False) -> None:
        """Have the server drain and end. Idempotent; safe from any thread.

        Args:
            reason: what the log and the report name as the cause.
            lame_duck: False skips the lame duck.
            failed: True where an exception that nobody handled is the cause.
        """


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
