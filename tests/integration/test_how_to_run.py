"""The ways to run an app that the how-to page shows: by `fastapi run`, and in a program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get
from support.docs import how_to
from support.need import need, need_program
from support.ports import free_port
from support.server import STARTS, Periods, Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

SLOW = """
import asyncio

@app.get("/slow")
async def slow():
    print("slow began", flush=True)
    await asyncio.sleep(1)
    return "done"
"""


def program(directory: Path, number: int, port: int) -> list[str]:
    """Return the command of a program of the page, with a slow endpoint and a port of its own."""
    text = how_to("run-your-program", number)
    assert "port=8000" in text
    head, line, tail = text.partition("app.add_middleware(GracefulMiddleware)\n")
    text = head + line + SLOW + tail.replace("port=8000", f"port={port}")
    (directory / "main.py").write_text(text, encoding="utf-8")
    return [sys.executable, "main.py"]


PERIODS: Periods = {"lame_duck": 0.5, "grace": 20, "cleanup": 10}


def drains(command: Sequence[str], directory: Path, port: int) -> str:
    """Stop the server with a request in flight, and return its log."""
    with (
        Server(
            command,
            directory,
            port=port,
            ready_path="/slow",
            periods=PERIODS,
        ) as server,
        Client(port) as slow,
    ):
        slow.request("/slow")
        server.wait_for("slow began", count=2)  # the first was that of `ready_path`
        server.terminate()
        assert slow.response().status == 200
        assert server.wait() == 0
        assert server.count("clean after") == 1
        assert "Traceback" not in server.log
        return server.log


def test_the_code_after_uvicorn_run_runs(tmp_path: Path) -> None:
    need("fastapi")
    port = free_port()
    log = drains(program(tmp_path, 0, port), tmp_path, port)
    assert "\nclosed the shop\n" in log


def test_a_server_among_other_tasks_drains(tmp_path: Path) -> None:
    need("fastapi")
    port = free_port()
    drains(program(tmp_path, 1, port), tmp_path, port)


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_fastapi_run_drains(
    tmp_path: Path, options: tuple[str, ...], beside: ThreadPoolExecutor
) -> None:
    need("fastapi_cli")
    port = free_port()
    program(tmp_path, 0, port)
    command = [need_program("fastapi"), "run", "main.py", "--port", str(port), *options]
    with Server(
        command,
        tmp_path,
        port=port,
        ready_path="/slow",
        periods=PERIODS,
    ) as server:
        server.wait_for("Application startup complete", count=max(1, len(options)), within=STARTS)
        slow = beside.submit(get, port, "/slow")
        server.wait_for("slow began", count=2)  # the first was that of `ready_path`
        server.terminate()
        assert slow.result().status == 200
        server.wait()
        assert server.count("clean after") == max(1, len(options))
