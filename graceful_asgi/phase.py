"""The phases of a drain, and one step between two of them. Only data."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Phase(enum.Enum):
    """The phases of a server, from serving to stopped."""

    SERVING = "serving"
    LAME_DUCK = "lame duck"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    CLEANUP = "cleanup"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChange:
    """One step of a drain, as hooks get it and the log shows it."""

    previous: Phase
    phase: Phase
    reason: str
    """The trigger that began the drain: `SIGTERM`, `drain endpoint`, ..."""
    in_flight: int
    """The number of pieces of work in flight at that moment."""
    time_left: float = math.inf
    """Seconds that the new phase may last; infinite where only a stop or a resume ends it."""
    stopped_by: str = ""
    """The stop that this drain ends with; empty before one has come."""
