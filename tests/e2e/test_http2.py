"""HTTP/2 clients on a connection that is never idle. The frames: tests/servers/test_connections.py.

By RFC 9113, 6.8, a GOAWAY asks for new streams elsewhere, and leaves the open ones alone. curl,
nghttp and Go do so. `h2`, and so httpx, fails every open stream (h2 4.4.1, httpx 0.28.1).
"""

from __future__ import annotations

import asyncio
import inspect
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from support.server import Server, uvicorn
from uvicorn import Config

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    "http2" not in inspect.signature(Config).parameters, reason="this uvicorn has no HTTP/2"
)

CLIENTS = {
    "curl": ("curl", "-sS", "-v", "--http2-prior-knowledge"),
    "nghttp": ("nghttp", "-v"),
}


def http2_server(directory: Path, *, grace: float) -> Server:
    return uvicorn(directory, "--http2", http="zttp", lame_duck=0.2, grace=grace)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_open_stream_is_served_after_the_goaway(client: str, tmp_path: Path) -> None:
    if shutil.which(client) is None:
        pytest.skip(f"{client} is not installed")
    with http2_server(tmp_path, grace=4.0) as server:
        # It is told to go away 2 s before the end of the grace period, 2.2 s from the signal on.
        command = [*CLIENTS[client], f"http://127.0.0.1:{server.port}/slow?s=2.8"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as asking:
            server.wait_for("slow began")
            server.signal(signal.SIGTERM)
            said, _ = asking.communicate(timeout=30)
        assert server.wait() == 0
    assert "slow, but complete" in said
    assert "GOAWAY" in said
    assert asking.returncode == 0


def test_httpx_is_not_told_to_go_while_there_is_time(tmp_path: Path) -> None:
    async def ask(server: Server) -> None:
        base = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(http1=False, http2=True, base_url=base, timeout=20) as client:
            assert (await client.get("/")).http_version == "HTTP/2"
            slow = asyncio.ensure_future(client.get("/slow?s=4.5"))
            await asyncio.to_thread(server.wait_for, "slow began")
            server.signal(signal.SIGTERM)
            # Over before the slow one is: with that the connection is idle, and is closed.
            over = time.monotonic() + 1.5
            while time.monotonic() < over:
                assert (await client.get("/")).status_code == 200
                await asyncio.sleep(0.01)
            assert (await slow).text == "slow, but complete"

    with http2_server(tmp_path, grace=12.0) as server:
        asyncio.run(ask(server))
        assert server.wait() == 0
