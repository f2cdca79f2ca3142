"""A count of what a program has begun and ended: equal at a clean end of its process."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

begun: Counter[str] = Counter()
ended: Counter[str] = Counter()


@contextlib.contextmanager
def entry(kind: str) -> Iterator[None]:
    """Count a piece of work of *kind*; it has ended however the block is left, but for a kill."""
    begun[kind] += 1
    try:
        yield
    except BaseException as error:
        say(f"lost: {kind}: {error!r}")
        raise
    ended[kind] += 1


def close() -> None:
    """Print the sums, for the test."""
    for kind, count in begun.items():
        say(f"ledger: {kind}: {count} begun, {ended[kind]} ended")


def say(line: str) -> None:
    """Print a line into the server's log at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
