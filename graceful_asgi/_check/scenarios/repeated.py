"""Repeated signal: supervisors send it again. A server run of its own, under the whole load."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from ..result.finding import Exit, Finding, is_faultless

if TYPE_CHECKING:
    from ..result.counts import LoadResult

NAME: Final = "repeated signal"
SENT_AGAIN_AFTER: Final = (0.15, 0.4, 0.8)
"""Seconds from the first one."""
URGENT: Final = frozenset({signal.SIGINT, getattr(signal, "SIGQUIT", signal.SIGINT)})
"""Signals that ask for haste the second time, and get it by losing requests."""


def judge_repeated(load: LoadResult, end: Exit) -> Finding:
    """Return the finding. Right: the same as after a single signal."""
    if not end.in_time:
        return Finding(NAME, "failed", "still there", load, end.seconds)
    return Finding(NAME, "passed" if is_faultless(load) else "failed", load=load)
