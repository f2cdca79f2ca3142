"""MCP's official clients and servers: each tool call gets its answer, or its client an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.need import missing, need
from support.server import PACKAGE_ROOT, TESTS, Server, uvicorn

from .drains import ROUNDS, drains

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(400)

KINDS = ["1", "2", "2-legacy", "fastmcp"]
SESSIONS = 4
STARTS = 90.0
"""Seconds for a program to import fastmcp on a machine that is busy with as many others."""
SDK_1 = PACKAGE_ROOT / ".venv" / "mcp-1"
"""Version 1 of the SDK: the Makefile puts it beside the version that is installed."""


def search_path(kind: str) -> str:
    """Return the PYTHONPATH with which `mcp` is what *kind* needs."""
    paths = [PACKAGE_ROOT, TESTS]
    if kind == "1":
        paths.insert(0, SDK_1)
        if not SDK_1.is_dir():
            missing("version 1 of the MCP SDK is not in .venv/mcp-1 (make clients)")
    need("fastmcp" if kind == "fastmcp" else "mcp")
    return os.pathsep.join(map(str, paths))


def serving(directory: Path, kind: str, loop: str, *, lame_duck: float, grace: float) -> Server:
    sdk = "fastmcp" if kind == "fastmcp" else "mcp"
    # Version 1 logs with rich, which breaks lines at the width of a terminal.
    env = {"APP_SDK": sdk, "PYTHONPATH": search_path(kind), "COLUMNS": "400"}
    app = "integration.clients.programs.mcp_app:app"
    return uvicorn(
        directory,
        app=app,
        loop=loop,
        env=env,
        ready=None,
        lame_duck=lame_duck,
        grace=grace,
        cancel=2,
        cleanup=10,
    )


def client_of(server: Server, kind: str, seconds: float, patience: float) -> subprocess.Popen[str]:
    url = f"http://127.0.0.1:{server.port}/mcp"
    program = [sys.executable, "-m", "integration.clients.programs.mcp_client"]
    return subprocess.Popen(
        [*program, url, kind, str(SESSIONS), str(seconds), str(patience)],
        env={**os.environ, "PYTHONPATH": search_path(kind)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the SDK logs what it is refused at its end
        text=True,
    )


def drained(server: Server, kind: str, seconds: float, patience: float) -> dict[str, Any]:
    """Stop *server* under calls, and return how many ended how."""
    server.wait_for("Uvicorn running on", within=STARTS)
    with client_of(server, kind, seconds, patience) as client:
        try:
            server.wait_for("work began", count=SESSIONS, within=STARTS)
            server.terminate()
            said, _ = client.communicate("go\n", timeout=100)
        finally:
            client.kill()
    ends: dict[str, Any] = json.loads(said)
    return ends


@drains("kind", KINDS)
def test_a_tool_call_in_flight_and_one_made_in_the_lame_duck_get_their_answers(
    tmp_path: Path, kind: str, loop: str, round_number: int
) -> None:
    """The listening stream of each session holds up nothing: the exit code is 0."""
    with serving(tmp_path, kind, loop, lame_duck=10, grace=60) as server:
        ends = drained(server, kind, seconds=2, patience=60)
        assert server.wait() == 0
    expected = {
        "in flight: whole": SESSIONS,
        "in the lame duck: whole": SESSIONS,
        "of a new session: whole": 1,
    }
    if kind == "2":
        expected["listening: lost"] = SESSIONS + 1  # so its client listens again
    assert ends == expected
    assert "0 cancelled, 0 aborted" in server.log
    assert server.seconds_since_signal() < 50, "it waited for a listening stream"
    # Version 1 logs the end of a listening stream as an error, whoever ends it.
    assert kind == "1" or "Traceback" not in server.log


@drains("kind", KINDS if ROUNDS > 1 else KINDS[:2])
def test_a_tool_call_that_takes_longer_never_gets_an_answer_that_looks_complete(
    tmp_path: Path, kind: str, loop: str, round_number: int
) -> None:
    # The client of version 1 takes no notice of a stream that is cut, and waits on.
    end, patience = ("never", 12) if kind == "1" else ("raised", 60)
    with serving(tmp_path, kind, loop, lame_duck=1, grace=3) as server:
        ends = drained(server, kind, seconds=600, patience=patience)
        assert server.wait() == 1
    assert not [end for end in ends if end.endswith("whole")], ends
    assert ends[f"in flight: {end}"] == SESSIONS, ends
