"""Counts the threads of this process at each fork. Import it before anything that pauses them."""

from __future__ import annotations

import os

at_fork: list[int] = []
"""How many threads each fork has seen."""


def _count() -> None:
    at_fork.append(len(os.listdir("/proc/self/task")))


# What is registered first is called last: whatever is paused for a fork has paused by then.
os.register_at_fork(before=_count)
