"""Servers that are put under load: what is lost is counted at the client."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import anyio
from support.ports import free_port
from support.server import Server

from graceful_asgi._check.load.plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


PLAN: Final = LoadPlan(
    keep_alive_clients=20,
    fresh_clients=10,
    think_period=0.01,
    slow_path="/slow?s=1",
    single_after=0.3,
)


async def logged(server: Server, lines: Mapping[str, int]) -> None:
    """Wait until its log has so many of each."""
    with anyio.fail_after(60):
        while any(server.log_path.read_text().count(line) < n for line, n in lines.items()):  # noqa: ASYNC110  # a file
            await anyio.sleep(0.02)


def loaded(directory: Path, arguments: Sequence[str], *, lame_duck: float = 0.5) -> Server:
    """Return `python -m ...`, ready once it answers; `{port}` in an argument is its own port."""
    port = free_port()
    return Server(
        [sys.executable, "-m", *(each.replace("{port}", str(port)) for each in arguments)],
        directory,
        port=port,
        ready_path="/",
        periods={"lame_duck": lame_duck, "grace": 10, "cancel": 2, "cleanup": 5},
    )
