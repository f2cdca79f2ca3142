"""The one place where a test waits for a state that nobody announces: polled, with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Found = TypeVar("Found")

PATIENCE = 10.0
"""Seconds. Only a failing test waits this long, so it may be far more than is needed."""


def eventually(look: Callable[[], Found], what: str, *, within: float = PATIENCE) -> Found:
    """Return the first true value of *look*; fail after *within* seconds."""
    deadline = time.monotonic() + within
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within} s: {what}")
        time.sleep(0.005)
    return found
