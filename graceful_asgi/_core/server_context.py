"""Where a drainer stands: in which process of which server, and with whom beside it. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class ServerId:
    """What the processes of one server have in common, and those of another have not."""

    pid: int
    """Of the parent of the workers, or of the one process."""
    token: str = "0"
    """Tells servers apart whose pids are the same: in two containers that share a directory, or
    below one parent that listens in two places. Letters and digits."""

    def __str__(self) -> str:
        return f"{self.pid}@{self.token}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """The process that a drainer is in, as its server knows it."""

    pid: int = field(default_factory=os.getpid)
    """Of the parent of the workers, or of the one process."""
    identify: Callable[[], ServerId] = lambda: ServerId(os.getpid())
    """Return what tells the server from others of the same pid. Reads a file of /proc: not for the
    event loop."""
    has_endpoint: bool = False
    """Whether this server answers a path that drains it."""
    origins: Sequence[str] = ()
    """Each option that is not the default, with who gave it."""

    @property
    def is_worker(self) -> bool:
        """Whether the server has other processes than this one."""
        return self.pid != os.getpid()


class Peers(Protocol):
    """The other processes of a drainer's server."""

    async def drain(self, reason: str, *, resume_after: float | None) -> Sequence[str]:
        """Begin the drain in all of them, wait for each, and say what was not clean."""
