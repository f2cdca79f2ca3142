"""Event streams read in a browser's way: each end is taken for one, and the client comes back.

WHATWG HTML, section 9.2: an `EventSource` drops an event that is not complete, and sends the id of
the last one when it connects again.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from support.need import need

from .drains import drains
from .takeover import takeover

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

CLIENTS = 10


class EventSource:
    """A client that reads events by `httpx_sse`, and connects again after each end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._library: Any = importlib.import_module("httpx_sse")
        self.ids: list[int] = []
        self.ends = 0
        self.errors: list[Exception] = []

    @property
    def received(self) -> int:
        return len(self.ids)

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            while True:
                try:
                    await self._read(client)
                    self.ends += 1
                except httpx.HTTPError as error:
                    self.errors.append(error)
                await anyio.sleep(0.05)

    async def _read(self, client: httpx.AsyncClient) -> None:
        headers = {"Last-Event-ID": str(self.ids[-1])} if self.ids else {}
        async with self._library.aconnect_sse(client, "GET", self._url, headers=headers) as source:
            source.response.raise_for_status()
            async for event in source.aiter_sse():
                assert event.data == f"tick {event.id}"
                self.ids.append(int(event.id))


@drains("framework", ["starlette", "sse-starlette", "fastapi"])
async def test_no_browser_sees_an_error_and_each_goes_on_where_it_was(
    tmp_path: Path, framework: str, loop: str, round_number: int
) -> None:
    need("httpx_sse", "sse_starlette", "fastapi.sse")
    async with takeover(tmp_path, loop=loop) as servers:
        sources = [
            EventSource(f"http://127.0.0.1:{servers.port}/ticks/{framework}")
            for _ in range(CLIENTS)
        ]
        assert await servers.survived_by(sources) == 0
        for source in sources:
            assert source.errors == []
            assert source.ends >= 1, "closed by the first server"
            assert source.ids == list(range(1, len(source.ids) + 1)), "none twice, none missing"
        log = servers.first.log
        assert " 0 cancelled, 0 aborted" in log
        assert "Traceback" not in log
