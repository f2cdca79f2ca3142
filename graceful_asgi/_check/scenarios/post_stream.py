"""POST event stream: an answer in events that no client asks for again, as of an LLM."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..result.counts import Answered, Lost, Unsent
from .clients import Clients

if TYPE_CHECKING:
    from ..client.http1 import Request
    from ..client.run import Run

_CLIENTS: Final = 2


class PostEventStream(Clients):
    """Right: each stream comes whole. One without an end is cut, and its client can see that.

    Its client does not connect anew, as an EventSource does: a stream that ends early with a
    complete body is taken for the whole answer. Streams are begun until the server accepts no more.
    """

    name = "POST event stream"
    option = "--sse-post-path"

    def count(self) -> int:
        return _CLIENTS

    async def client(self, run: Run, request: Request) -> None:
        await run.poised.wait()
        right = run.expectations.get(self.endpoint)
        while (connection := await self.connect(run)) is not None:
            began = False

            def watch(piece: bytes) -> None:
                nonlocal began
                began = began or bool(piece)

            with closing(connection):
                written = run.send(self.load, connection, request)
                if isinstance(written, Unsent):
                    continue
                outcome = await run.receive(connection, watch=watch)
                is_cut = isinstance(outcome, Lost) and outcome.kind != "timeout"
                if is_cut and began and right is not None and not right.has_end:
                    outcome = Answered(200, reusable=False)  # the client knows that it was cut
                run.record(self.load, outcome, written)
            await self.think()
