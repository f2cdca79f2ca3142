"""Two servers on one listener: the first is stopped, and its clients come back to the second."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import anyio
from support.polling import eventually
from support.ports import listening_socket
from support.server import Server, uvicorn

from .drains import begins_to_drain, exit_code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


class ReturningClient(Protocol):
    """A client that connects again after each end."""

    @property
    def received(self) -> int:
        """The number of messages or events that it has got, from both servers."""

    async def run(self) -> None:
        """Connect, receive, and connect again, until cancelled."""


class Takeover:
    """A server that is stopped, and the one that serves in its place.

    A client that comes back in the lame duck may meet either.
    """

    def __init__(self, first: Server, second: Server, port: int) -> None:
        self.first, self.second, self.port = first, second, port

    async def survived_by(self, clients: Sequence[ReturningClient]) -> int:
        """Start the second server and stop the first, while *clients* receive without an end.

        Return the exit code of the first, once each client has got more from the second.
        """
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.run)
            await _all_receive(clients, 5)
            await anyio.to_thread.run_sync(self.second.start)
            await begins_to_drain(self.first)
            code = await exit_code(self.first)
            await _all_receive(clients, 5)
            tasks.cancel_scope.cancel()
        return code


async def _all_receive(clients: Sequence[ReturningClient], more: int) -> None:
    """Wait until each of *clients* has received so many *more* messages."""
    enough = [client.received + more for client in clients]
    await eventually(
        lambda: all(c.received >= n for c, n in zip(clients, enough, strict=True)), within=60
    )


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
                cleanup=10,
            )
            for _ in range(2)
        ]
        first, second = servers
        async with first:
            try:
                yield Takeover(first, second, port)
            finally:
                second.kill()
