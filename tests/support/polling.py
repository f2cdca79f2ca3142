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

_SHORTEST: Final = 0.002
_LONGEST: Final = 0.02
"""Seconds between two looks. They grow with the wait, so that a test which waits for a second does
not take the core away from the server that it waits for."""


async def eventually(
    look: Callable[[], Found], what: str = "", *, within: float = PATIENCE
) -> Found:
    """Return the first true value of *look*; fail after *within* seconds. For async tests."""
    for found, pause in _looks(look, within):
        if found:
            return found
        await anyio.sleep(pause)
    raise AssertionError(f"not so within {within} s: {what or look}")


def wait_until(look: Callable[[], Found], what: str = "", *, within: float = PATIENCE) -> Found:
    """Do the same as `eventually` where there is no event loop."""
    for found, pause in _looks(look, within):
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"not so within {within} s: {what or look}")


def _looks(look: Callable[[], Found], within: float) -> Iterator[tuple[Found, float]]:
    """Yield what *look* returns, and the seconds until the next look, for *within* seconds."""
    # Seconds of the machine, not of the loop: in virtual time a loop's clock jumps.
    began = time.monotonic()
    while (waited := time.monotonic() - began) <= within:
        yield look(), min(_LONGEST, max(_SHORTEST, waited / 10))
