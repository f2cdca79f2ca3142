"""Process groups, as far as `/proc` tells of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def others_running(group: int) -> int:
    """Return how many processes of a group run besides its leader; 0 without `/proc`."""
    return sum(state != "Z" for pid, state in _members(group) if pid != group)


def _members(group: int) -> Iterator[tuple[int, str]]:
    """Return the process ids in the group, each with its state (proc(5): Z is a zombie)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            # The name stands in parentheses and may hold anything, a parenthesis too.
            state, _, found, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(found) == group:
                yield int(stat.parent.name), state
