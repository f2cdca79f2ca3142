"""Upload: a request whose body is half sent when the signal comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .single import Single

if TYPE_CHECKING:
    from ..load.client import Connection
    from ..load.request import Request
    from ..load.run import Run
    from ..result.counts import Answered, Lost

_PIECE: Final = b"x" * 8192
_PIECES_BEFORE: Final = 4
_PIECES_AFTER: Final = 4
_INTERVAL: Final = 0.1


class Upload(Single):
    """Right: a complete answer. The other half of the body takes 0.4 s from the signal on."""

    name = "upload"
    option = "--upload-path"
    advice = "it has to read the body"

    def path(self) -> str | None:
        return self.plan.upload_path

    def request(self, run: Run, path: str) -> Request:
        length = str(len(_PIECE) * (_PIECES_BEFORE + _PIECES_AFTER))
        kind = ("Content-Type", "application/octet-stream")
        return run.request("POST", path, ("Content-Length", length), kind)

    async def answer(self, run: Run, connection: Connection) -> Answered | Lost:
        body = asyncio.create_task(self._send_body(run, connection))
        try:
            return await run.receive(connection)
        finally:
            body.cancel()

    async def _send_body(self, run: Run, connection: Connection) -> None:
        try:
            for _ in range(_PIECES_BEFORE):
                await connection.write(_PIECE)
            self.in_position.set()
            await run.signalled.wait()
            for _ in range(_PIECES_AFTER):
                await asyncio.sleep(_INTERVAL)
                await connection.write(_PIECE)
        except OSError:
            # The server does not want the rest. Whether it has answered is what `receive` says.
            self.in_position.set()
