"""Counts the threads of this process at each fork. Import it before anything that pauses them."""

from __future__ import annotations

import os

at_fork: list[int] = []
"""The number of threads at each fork."""


def count_threads() -> int:
    """Return how many threads the kernel has of this process."""
    return len(os.listdir("/proc/self/task"))


def _count() -> None:
    at_fork.append(count_threads())


# What is registered first is called last: whatever is paused for a fork has paused by then.
os.register_at_fork(before=_count)
