"""The process and the server that a drainer runs in, and the server's other processes. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ServerId(NamedTuple):
    """Identifies a server: the same in all of its processes, different for every other server."""

    pid: int
    """The pid of the parent of the workers, or of the only process."""
    token: str = "0"
    """Distinguishes servers whose pids are the same: in two containers that share a directory, or
    below one parent that listens in two places. Letters and digits."""

    def __str__(self) -> str:
        return f"{self.pid}@{self.token}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServerContext:
    """The process that a drainer is in, as its server knows it."""

    pid: int = field(default_factory=os.getpid)
    """The pid of the parent of the workers, or of the only process."""
    identify: Callable[[], ServerId] = lambda: ServerId(os.getpid())
    """Returns the `ServerId`. Reads a file in /proc: do not call it on the event loop."""
    has_endpoint: bool = False
    """True if this server answers a path that drains it."""
    origins: Sequence[str] = ()
    """Each option that is not the default, and where its value came from."""

    @property
    def is_worker(self) -> bool:
        """True if the server has other processes as well."""
        return self.pid != os.getpid()


class Peers(Protocol):
    """The other processes of a drainer's server."""

    async def drain(self, reason: str, *, resume_after: float | None) -> Sequence[str]:
        """Begin the drain in all of them and wait for each; return what was not clean."""
