"""Parameters of this folder: how often each drain is run, and on which event loop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from support.server import Server

ROUNDS: Final = int(os.environ.get("ROUNDS", "1"))
"""Rounds of each drain. With more than one, every variant is run on both event loops."""

WEBSOCKETS: Final = ("websockets-sansio", "wsproto", "websockets")


def drains(name: str, variants: Sequence[str]) -> pytest.MarkDecorator:
    """Parametrise a test with *variants* as *name*, with a loop, and with a round.

    A quick run takes the loops in turn, so that each has some of the variants.
    """
    return pytest.mark.parametrize((name, "loop", "round_number"), list(_drains(variants)))


def _drains(variants: Sequence[str]) -> Iterator[Any]:
    loops = ("asyncio", "uvloop")
    for place, variant in enumerate(variants):
        for loop in loops if ROUNDS > 1 else [loops[place % 2]]:
            for number in range(ROUNDS):
                yield pytest.param(variant, loop, number, id=f"{variant}-{loop}-{number}")


async def begins_to_drain(server: Server) -> None:
    """Stop *server*; return when its lame duck has begun."""
    await anyio.to_thread.run_sync(server.terminate)


async def logs(server: Server, pattern: str, count: int) -> None:
    """Wait until the log of *server* has *count* matches of *pattern*."""
    await anyio.to_thread.run_sync(lambda: server.wait_for(pattern, count=count))


async def exit_code(server: Server) -> int:
    return await anyio.to_thread.run_sync(server.wait)
