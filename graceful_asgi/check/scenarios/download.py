"""Streaming download: an answer whose body is on its way when the signal comes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import h11

from graceful_asgi.check.finding import Exit, Finding, from_outcome
from graceful_asgi.check.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from graceful_asgi.check.counts import Outcome
    from graceful_asgi.check.stage import Stage


class Download(Scenario):
    """Right: the body reaches the end that its framing announced."""

    name = "streaming download"
    _outcome: Outcome | None = None

    async def run(self, stage: Stage) -> None:
        if self.plan.stream_path is None:
            return self.not_run("needs --stream-path")
        await stage.poised.wait()
        connection = await self.connect(stage)
        if connection is None:
            return
        with closing(connection):
            request = stage.request("GET", self.plan.stream_path)
            unsent = stage.send(self.ledger, connection, request)
            outcome = unsent or await stage.receive(connection, watch=self._watch)
            if not self.answered_early(stage, outcome, "its body has to take longer"):
                self._outcome = outcome
            if unsent is None:
                stage.record(self.ledger, outcome, written_before=True)

    def _watch(self, event: h11.Response | h11.Data) -> None:
        if isinstance(event, h11.Data):
            self.in_position.set()

    def judge(self, end: Exit) -> Finding:
        return from_outcome(self.name, self._outcome, self.ledger.result())
