"""A drain that fails in the middle, by an object that no uvicorn has among its connections."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from support.client import get, is_refused
from support.server import uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

STRANGE_APP = """
import gc
from uvicorn import Server
from e2e.app import app as inner

class Strange:
    def __init__(self, connections):
        self.connections = connections
        connections.add(self)

    @property
    def transport(self):
        raise RuntimeError("as asked")

    def shutdown(self):
        self.connections.discard(self)

async def app(scope, receive, send):
    if scope.get("path") == "/strange":
        server = next(thing for thing in gc.get_objects() if isinstance(thing, Server))
        Strange(server.server_state.connections)
        scope = {**scope, "path": "/"}
    await inner(scope, receive, send)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_is_in_flight_finishes_as_on_plain_uvicorn(
    tmp_path: Path, loop: str, beside: ThreadPoolExecutor
) -> None:
    (tmp_path / "strange_app.py").write_text(STRANGE_APP)
    with uvicorn(tmp_path, app="strange_app:app", loop=loop, lame_duck=0.2, grace=4) as server:
        assert get(server.port, "/strange").status == 200
        slow = beside.submit(get, server.port, "/slow?s=1")
        server.wait_for("slow began")
        server.signal(signal.SIGTERM)
        server.wait_for("the drain failed; uvicorn shuts down by itself")
        assert slow.result().body == b"slow, but complete"
        assert server.wait() == 1
        assert is_refused(server.port)
        assert "as asked" in server.log
        assert server.count("the loss-free listener close failed") == 1
