"""Streaming download: an answer whose body is on its way when the signal comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .single import Single

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection
    from ..client.run import Run
    from ..result.counts import Complete, Lost


class Download(Single):
    """Right: the body reaches the end that its framing announced, and is the right one."""

    name = "streaming download"
    option = "--stream-path"

    async def answer(self, run: Run, connection: HttpConnection) -> Complete | Lost:
        def watch(piece: bytes) -> None:
            if piece:
                self.in_position.set()

        return await run.receive(connection, watch=watch)
