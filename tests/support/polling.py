"""Wait for a state that nobody announces: the one place that polls, always with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Found = TypeVar("Found")

PATIENCE: Final = 20.0
"""Seconds that a test waits for what has to come. Only a failing test waits this long, so it may
be far more than is needed, on however slow a machine."""

_INTERVAL: Final = 0.002


async def eventually(
    look: Callable[[], Found], what: str = "", *, within: float = PATIENCE
) -> Found:
    """Return the first true value of *look*; fail after *within* seconds. For async tests."""
    looks = _looks(look, what, within)
    while not (found := next(looks)):  # noqa: ASYNC110  # nobody announces it
        await anyio.sleep(_INTERVAL)
    return found


def wait_until(look: Callable[[], Found], what: str = "", *, within: float = PATIENCE) -> Found:
    """Do the same as `eventually` where there is no event loop."""
    looks = _looks(look, what, within)
    while not (found := next(looks)):
        time.sleep(_INTERVAL)
    return found


def _looks(look: Callable[[], Found], what: str, within: float) -> Iterator[Found]:
    # Seconds of the machine, not of the loop: in virtual time a loop's clock jumps.
    deadline = time.monotonic() + within
    while time.monotonic() <= deadline:
        yield look()
    raise AssertionError(f"not so within {within} s: {what or look}")
