"""Fixtures of the tests of diagnostics: a blocked thread, and asyncio."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.polling import wait_until

from .waiting import Blocked

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def blocked() -> Iterator[tuple[Blocked, Any]]:
    """A coroutine that blocks, in a thread of its own."""
    block = Blocked()
    coroutine = block.handler()

    def run() -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(block.is_inside)
    yield block, coroutine
    block.release.set()
    thread.join()


@pytest.fixture
def uvloop() -> bool:
    return False


@pytest.fixture
def anyio_backend(uvloop: bool) -> tuple[str, dict[str, Any]]:
    """The servers that drain run on asyncio; on trio nothing is followed out of its task."""
    return "asyncio", {"use_uvloop": uvloop}
