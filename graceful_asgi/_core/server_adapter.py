"""Contracts between a drain and the server it happens in. Nothing here acts.

A drain acts on the server through a `ServerAdapter`. `ServerEvents` are called when something
happens to the server. Code that wants the server to end calls `StoppableServer.stop`, and the
server stops its drain: a stop goes in one direction only.

To support another server, write its `ServerAdapter` in `_servers/`, and use it in `attach` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from ..phase import PhaseChange


class ServerEvents:
    """Called when something happens to a server, from its start to its end. Override what you need.

    The methods are called on the event loop and must not wait. At the hard deadline, with the loop
    stuck, the last calls come from another thread.
    """

    outlives_server: ClassVar[bool] = False
    """True if it is called for the next server of the same drainer as well."""

    def opened(self) -> None:
        """Take note that the server listens."""

    def phase_changed(self, change: PhaseChange) -> None:
        """Take note of a phase change. They come in order; the last one leads to STOPPED."""

    def closed(self) -> None:
        """Release everything: the server has stopped, or has failed to start. Called once."""


class StoppableServer(ServerEvents):
    """A server that code can end without a signal. It is one of the `ServerEvents` of its drain."""

    @property
    def gone(self) -> bool:
        """True if nothing of it will run again."""
        raise NotImplementedError

    def stop(self, reason: str, *, lame_duck: bool = True, failed: bool = False) -> None:
        """Make the server drain and end. Idempotent; safe from any thread.

        Args:
            reason: what the log and the report name as the cause.
            lame_duck: False skips the lame duck.
            failed: True where an exception that nobody handled is the cause.
        """
        raise NotImplementedError


class ServerAdapter(Protocol):
    """The four verbs by which a drain acts on a server."""

    async def close_listener(self) -> None:
        """Stop accepting, without losing a connection."""

    def is_idle(self) -> bool:
        """Return True if nothing is open or running that the registry does not count.

        After False the adapter wakes the drain (`Notifier.wake`) when that may have changed.
        """

    def cut_answers(self) -> int:
        """Abort each response that is sent in part, so that it cannot look complete.

        Return how many of them had left the app and were only being flushed to a slow reader.
        """

    def cut_connections(self) -> None:
        """Abort every connection that is left."""


class PassiveAdapter:
    """The adapter of a server that this package does not know. It changes nothing."""

    async def close_listener(self) -> None:
        """Do nothing: such a server has closed its listener before it sends `lifespan.shutdown`."""

    def is_idle(self) -> bool:
        """Rely on the registry alone."""
        return True

    def cut_answers(self) -> int:
        """Leave them to the server."""
        return 0

    def cut_connections(self) -> None:
        """Leave them to the server."""
