"""Servers that are put under load: what is lost is counted at the client."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from support.polling import eventually
from support.ports import free_port
from support.server import Server

from graceful_asgi._check.client.plan import LoadPlan

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
LIGHT: Final = LoadPlan(
    keep_alive_clients=8,
    fresh_clients=4,
    think_period=0.03,
    slow_path="/slow?s=1",
    single_after=0.3,
)
"""For what takes long: it leaves the machine time to start the workers that are waited for."""


async def logged(server: Server, lines: Mapping[str, int]) -> None:
    """Wait until its log has so many of each."""
    await eventually(
        lambda: all(server.count(line) >= count for line, count in lines.items()),
        f"{lines} in the log",
        within=60,
    )


def loaded(directory: Path, arguments: Sequence[str], *, lame_duck: float = 0.5) -> Server:
    """Return `python -m ...`, ready once it answers; `{port}` in an argument is its own port."""
    port = free_port()
    return Server(
        [sys.executable, "-m", *(each.replace("{port}", str(port)) for each in arguments)],
        directory,
        port=port,
        ready_path="/",
        periods={"lame_duck": lame_duck, "grace": 10, "cancel": 2, "cleanup": 5},
        measured=False,
    )
