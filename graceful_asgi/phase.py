"""The phases of a drain, and one step between two of them. Only data."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Phase(enum.Enum):
    """The phases of a server, from serving to stopped. `value` is its name in the log."""

    SERVING = "serving"
    """No drain is under way."""
    LAME_DUCK = "lame duck"
    """A drain has begun: the listener still accepts, and readiness says 503."""
    DRAINING = "draining"
    """The listener is closed, and work in flight goes on."""
    CANCELLING = "cancelling"
    """Work in flight is cancelled, and unwinds."""
    CLEANUP = "cleanup"
    """Nothing is waited for but `lifespan.shutdown`."""
    STOPPED = "stopped"
    """The drain is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChange:
    """One step of a drain, as hooks get it and the log shows it."""

    previous: Phase
    """The phase that has ended."""
    phase: Phase
    """The phase that has begun."""
    reason: str
    """The trigger that began the drain: `SIGTERM`, `drain endpoint`, ..."""
    in_flight: int
    """The number of pieces of work in flight at that moment."""
    time_left: float = math.inf
    """Seconds that the new phase may last; infinite where only a stop or a resume ends it."""
    stopped_by: str = ""
    """The stop that this drain ends with; empty before one has come."""
