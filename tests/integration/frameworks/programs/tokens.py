"""Common to servers of language models: a slow answer, and tokens streamed to a POST."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi.responses import StreamingResponse

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import FastAPI


def add_endpoints(
    app: FastAPI, path: str, entry: str, paid: Callable[[], object] = lambda: None
) -> None:
    """Add ``/``, ``/slow`` and the stream at *path*; each is an *entry* of the ledger.

    *paid* is called when a stream has come to its end.
    """

    @app.get("/")
    async def root() -> str:
        return "ok"

    @app.get("/slow")
    async def slow(s: float = 1.0) -> str:
        await asyncio.sleep(s)
        return "slow"

    @app.post(path, response_model=None)
    async def completions() -> StreamingResponse:
        async def tokens() -> AsyncIterator[str]:
            with ledger.entry(entry):
                for number in range(20):
                    await asyncio.sleep(0.1)
                    yield f"data: token {number}\n\n"
                yield "data: [DONE]\n\n"
            paid()

        return StreamingResponse(tokens(), media_type="text/event-stream")
