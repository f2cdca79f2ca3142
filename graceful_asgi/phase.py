"""The phases of a drain and the one table that leads between them. No clock, no await, no I/O.

Whatever changes the phase goes through `advance`. A pair without a row changes nothing:
the second SIGTERM finds no row, and that is all that makes draining idempotent.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(enum.Enum):
    """Where a server stands between serving and gone."""

    SERVING = "serving"
    LAME_DUCK = "lame duck"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    CLEANUP = "cleanup"
    STOPPED = "stopped"


class Event(enum.Enum):
    """What can happen to a phase."""

    BEGIN = "begin"
    """Somebody asked for a drain."""
    RESUME = "resume"
    """The drain is called off; only while the listener is still open."""
    CLOSE = "close"
    """The lame duck has passed: the listener closes."""
    CANCEL = "cancel"
    """The grace period has passed, or somebody will not wait for it."""
    CLEAN_UP = "clean up"
    """Nothing is in flight any more, or nothing that would ever end."""
    FINISH = "finish"
    """`lifespan.shutdown` is done, or given up."""
    RESTART = "restart"
    """A server starts anew with a drainer that has been through a drain, or a part of one."""


TRANSITIONS: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.SERVING, Event.BEGIN): Phase.LAME_DUCK,
    (Phase.LAME_DUCK, Event.RESUME): Phase.SERVING,
    (Phase.LAME_DUCK, Event.CLOSE): Phase.DRAINING,
    (Phase.LAME_DUCK, Event.CANCEL): Phase.CANCELLING,
    (Phase.DRAINING, Event.CANCEL): Phase.CANCELLING,
    (Phase.DRAINING, Event.CLEAN_UP): Phase.CLEANUP,
    (Phase.CANCELLING, Event.CLEAN_UP): Phase.CLEANUP,
    (Phase.CLEANUP, Event.FINISH): Phase.STOPPED,
    (Phase.DRAINING, Event.RESTART): Phase.SERVING,
    (Phase.CANCELLING, Event.RESTART): Phase.SERVING,
    (Phase.CLEANUP, Event.RESTART): Phase.SERVING,
    (Phase.STOPPED, Event.RESTART): Phase.SERVING,
}


def advance(phase: Phase, event: Event) -> Phase | None:
    """Return the phase that *event* leads to from *phase*, or None where it leads nowhere."""
    return TRANSITIONS.get((phase, event))


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChange:
    """One step of a drain, as hooks and the log are told of it."""

    previous: Phase
    phase: Phase
    reason: str
    in_flight: int
