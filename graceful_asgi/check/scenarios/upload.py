"""Upload: a request whose body is half sent when the signal comes."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Final

from graceful_asgi.check.finding import Exit, Finding, from_outcome
from graceful_asgi.check.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from graceful_asgi.check.client import Connection
    from graceful_asgi.check.counts import Outcome
    from graceful_asgi.check.stage import Stage

_PIECE: Final = b"x" * 8192
_PIECES_BEFORE: Final = 4
_PIECES_AFTER: Final = 4
_INTERVAL: Final = 0.1


class Upload(Scenario):
    """Right: a complete answer. The other half of the body takes 0.4 s from the signal on."""

    name = "upload"
    _outcome: Outcome | None = None

    async def run(self, stage: Stage) -> None:
        if self.plan.upload_path is None:
            return self.not_run("needs --upload-path")
        await stage.poised.wait()
        connection = await self.connect(stage)
        if connection is None:
            return
        length = str(len(_PIECE) * (_PIECES_BEFORE + _PIECES_AFTER))
        head = [("Content-Length", length), ("Content-Type", "application/octet-stream")]
        request = stage.request("POST", self.plan.upload_path, *head)
        with closing(connection):
            unsent = stage.send(self.ledger, connection, request)
            body = asyncio.create_task(self._send_body(stage, connection))
            try:
                outcome = unsent or await stage.receive(connection)
            finally:
                body.cancel()
            if not self.answered_early(stage, outcome, "it has to read the body"):
                self._outcome = outcome
            if unsent is None:
                stage.record(self.ledger, outcome, written_before=True)

    async def _send_body(self, stage: Stage, connection: Connection) -> None:
        try:
            for _ in range(_PIECES_BEFORE):
                await connection.write(_PIECE)
            self.in_position.set()
            await stage.signalled.wait()
            for _ in range(_PIECES_AFTER):
                await asyncio.sleep(_INTERVAL)
                await connection.write(_PIECE)
        except OSError:
            # The server does not want the rest. Whether it has answered is what `receive` says.
            self.in_position.set()

    def judge(self, end: Exit) -> Finding:
        return from_outcome(self.name, self._outcome, self.ledger.result())
