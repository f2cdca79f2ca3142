"""Signals by which somebody asks a server to stop at once, or to make an end of stopping. Pure."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Final

QUICK_STOPS: Final = (signal.SIGINT, signal.SIGQUIT)
"""Ctrl+C, and what gunicorn's parent sends when it was told to hurry."""


class QuickStops:
    """Counts them. For signal handlers: one may interrupt another.

    Ctrl+C tells a gunicorn worker twice, by the terminal and by its parent, in any order.
    """

    def __init__(self) -> None:
        self._heard: Counter[int] = Counter()
        self._first: dict[int, int] = {}

    def is_new(self, signum: int) -> bool:
        """Count *signum*; say whether it is more than another signal's word of the same."""
        self._heard[signum] += 1
        return self._first.setdefault(self._heard[signum], signum) == signum
