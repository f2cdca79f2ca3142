"""Two servers on one listener: the first is stopped, and its clients come back to the second."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio
from support.ports import listening_socket
from support.server import Server, uvicorn

from .drains import begins_to_drain, exit_code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Takeover:
    """A server that is stopped, and the one that serves in its place.

    A client that comes back in the lame duck may meet either.
    """

    def __init__(self, first: Server, second: Server, port: int) -> None:
        self.first, self.second, self.port = first, second, port

    async def happens(self) -> None:
        """Start the second server, and stop the first."""
        await anyio.to_thread.run_sync(self.second.start)
        await begins_to_drain(self.first)

    async def is_over(self) -> int:
        """Wait until the first server has gone, and return its exit code."""
        return await exit_code(self.first)


@contextlib.asynccontextmanager
async def takeover(directory: Path, *args: str, loop: str) -> AsyncIterator[Takeover]:
    """Serve `live_app` by one server, and later by another on the same listener."""
    with listening_socket() as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        servers = [
            uvicorn(
                directory,
                "--fd",
                str(fd),
                *args,
                app="integration.clients.programs.live_app:app",
                loop=loop,
                ready="Uvicorn running on|Application startup complete",
                pass_fds=(fd,),
                lame_duck=2,
                grace=20,
                cleanup=5,
            )
            for _ in range(2)
        ]
        first, second = servers
        async with first:
            try:
                yield Takeover(first, second, port)
            finally:
                second.kill()
