"""Plays one scenario against a server that the test scripts, with a signal that nobody sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.polling import eventually

from check.client.adversary import reset
from graceful_asgi._check.load import Load
from graceful_asgi._check.result.finding import Exit, Finding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from graceful_asgi._check.client.expectation import Expectation
    from graceful_asgi._check.client.plan import Endpoint
    from graceful_asgi._check.result.counts import LoadResult
    from graceful_asgi._check.scenarios.base import Scenario

EXIT = Exit(code=0, seconds=1.0, late=False)


@dataclass(slots=True)
class Scene:
    """The connection that the server's script acts on."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    signalled: asyncio.Event
    gone: asyncio.Event
    """Set by the script when the server is to have gone; at its end, otherwise."""
    is_last: bool = True
    """Cleared by a script whose end is not to be that of the server."""

    async def head(self) -> bytes:
        """Read a request's head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Write, and go on."""
        self.writer.write(data)

    def reset(self) -> None:
        """End the connection with an RST."""
        reset(self.writer)

    def end(self, data: bytes = b"") -> None:
        """Write the last of the stream."""
        self.writer.write(data)
        self.writer.write_eof()


async def play(
    scenario: Scenario,
    script: Callable[[Scene], Awaitable[None]],
    *,
    signal: bool = True,
    wait: Callable[[], bool] = lambda: True,
    expectations: dict[Endpoint, Expectation] | None = None,
) -> tuple[Finding, LoadResult]:
    """Serve the scenario's connections by `script`; the signal comes when it is in position.

    And once `wait` says so; or never: then everything is before it.

    The server has gone when the first of its scripts has ended.
    """
    signalled, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        scene = Scene(reader, writer, signalled, gone)
        try:
            await script(scene)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the scenario has left
        finally:
            if scene.is_last:
                gone.set()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        load = Load(scenario.plan, port=port, scenarios=[scenario], expectations=expectations)

        async def send_signal() -> None:
            await load.in_position()
            await eventually(wait)
            load.mark_signalled()
            signalled.set()

        signalling = asyncio.create_task(send_signal()) if signal else None
        result = await load.run(until=gone.wait, within=10.0)
        if signalling is not None:
            assert signalling.done()
            await signalling
    [finding] = load.findings(EXIT)
    return finding, result
