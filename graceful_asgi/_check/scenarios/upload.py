"""Upload: a request whose body is half sent when the signal comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .single import Single

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection, Request
    from ..client.run import Run
    from ..result.counts import Complete, Lost

_PIECES: Final = 8
_INTERVAL: Final = 0.1


class Upload(Single):
    """Right: a complete answer. The other half of the body takes 0.4 s from the signal on."""

    name = "upload"
    option = "--upload-path"

    def request(self, run: Run) -> Request:
        return run.request(self.endpoint, with_body=False)

    def goes_on(self) -> bool:
        self.not_run("answered before its body was sent: the path has to read the body")
        return False

    async def answer(self, run: Run, connection: HttpConnection) -> Complete | Lost:
        body = asyncio.create_task(self._send_body(run, connection))
        try:
            return await run.receive(connection)
        finally:
            body.cancel()

    async def _send_body(self, run: Run, connection: HttpConnection) -> None:
        body = self.endpoint.body
        step = len(body) // _PIECES
        try:
            for number in range(_PIECES):
                if number == _PIECES // 2:
                    self.in_position.set()
                    await run.signalled.wait()
                if run.signalled.is_set():
                    await asyncio.sleep(_INTERVAL)
                await connection.write(body[number * step : (number + 1) * step])
        except OSError:
            # The server does not want the rest. Whether it has answered is what `receive` says.
            self.in_position.set()
