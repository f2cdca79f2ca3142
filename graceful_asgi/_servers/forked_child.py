"""Signals in a child that the app has forked: it inherits uvicorn's handler, but not its server."""

from __future__ import annotations

import contextlib
import mmap
import signal
import time
from typing import Final

from ..event_loop import monotonic

GROUP_PERIOD: Final = 0.3
"""Seconds in which a signal for a whole group of processes reaches each of them."""

_LOOK_PERIOD: Final = 0.01


class DrainingFlag:
    """Shows every child that is forked from now on whether the servers of the parent drain.

    A byte of memory that the processes share: it can be read in a signal handler, and costs nothing
    until a signal comes.
    """

    def __init__(self) -> None:
        self._byte: mmap.mmap | bytearray = bytearray(1)
        with contextlib.suppress(OSError, ValueError):  # no memory: the children cannot see it
            self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Note that the servers drain."""
        self._byte[0] = 1

    def clear(self) -> None:
        """Note that nothing is in flight any more: a signal may end the children from now on."""
        self._byte[0] = 0

    def end_child_unless_set(self, signum: int) -> None:
        """Take a signal, in a forked child. In its signal handler.

        A signal for the whole process group (Ctrl+C in a terminal, `tini -g`) is meant for the
        server. A child of a pool works for a request, so it goes on, and the app ends the pool
        later. A signal for this child alone (`Process.terminate`) ends it, as without uvicorn.
        """
        until = monotonic() + GROUP_PERIOD
        while not self._byte[0]:  # the parent may be about to get the same signal
            if monotonic() >= until:
                signal.signal(signum, signal.SIG_DFL)
                signal.raise_signal(signum)
                return
            time.sleep(_LOOK_PERIOD)
