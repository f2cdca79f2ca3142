"""The messages between the parent and its workers, and the deadlines of a stop. Only data.

A command goes down the pipe to a worker, a status comes up. SIGTERM is no message: it reaches a
worker whose threads cannot run.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from .._diagnostics.watchdog import MARGIN

if TYPE_CHECKING:
    from ..policy import DrainPolicy

Command = Literal["ping", "service stops", "interrupt"]
"""The messages of the parent. `ping`: answer with `Alive`. `service stops`: the other workers stop
as well, so nobody goes on with the listening sockets. `interrupt`: one Ctrl+C."""

EXIT_MARGIN: Final = 1.0
"""Seconds from a worker's own hard deadline to its SIGKILL: its own report tells more."""

LEFT_TO_THE_PARENT: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that a terminal sends to the parent and to every worker. The parent decides."""


@dataclass(frozen=True, slots=True)
class StopDeadlines:
    """Limits for a worker that stops, in seconds."""

    after_stop: float
    """Seconds from SIGTERM to its own hard deadline."""
    lame_duck: float
    """The part of `after_stop` that SIGINT skips."""
    after_cancel: float
    """Seconds from the cancellation of its work in flight."""

    @classmethod
    def of(cls, policy: DrainPolicy) -> StopDeadlines:
        """Return what *policy* allows."""
        return cls(
            policy.total_period + MARGIN,
            policy.lame_duck_period,
            policy.cancel_period + policy.cleanup_period + MARGIN,
        )


@dataclass(frozen=True, slots=True)
class Serving:
    """The worker has started, and serves."""

    deadlines: StopDeadlines
    """The deadlines by the app's policy; the parent knows its own options only."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The answer to a ping."""

    in_flight: int
    unfinished: int
    """The part of the work in flight at the stop that is still in flight."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The worker stops. Where it was not asked to, the parent starts another in its place."""

    failed: bool
    """True if an unhandled exception is the reason."""


Status = Serving | Alive | Stopping
