"""`DrainView`: what the parts of the core may ask of the drain that they work for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .._diagnostics.loop_monitor import LoopMonitor
    from ..phase import Phase
    from ..policy import DrainPolicy
    from ..report import DrainReport
    from .drain import Drain
    from .notifier import Notifier
    from .record import DrainRecord
    from .work import InFlight, Work


class DrainView(Protocol):
    """The reading half of `DrainRunner`. Safe from any thread and in a signal handler."""

    policy: DrainPolicy
    phase: Phase
    state: Drain
    in_flight: InFlight
    notifier: Notifier
    record: DrainRecord
    lifespan: Work | None
    loop_monitor: LoopMonitor | None

    @property
    def stopping(self) -> bool:
        """True once a stop has come."""

    @property
    def waiting(self) -> bool:
        """True while a drain is under way and work in flight may still finish."""

    @property
    def drained(self) -> bool:
        """True while a drain has nothing left to wait for."""

    def now(self) -> float:
        """Return the time in seconds, by the one clock of the drainer."""

    def lame_duck_end(self) -> float:
        """Return when the lame duck ends, unless more requests put its quiet end off."""

    def grace_end(self) -> float:
        """Return when work in flight is cancelled, as things stand after a stop."""

    def report(self) -> DrainReport:
        """Return the report of the drain up to now."""
