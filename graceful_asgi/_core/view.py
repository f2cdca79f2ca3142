"""`DrainView`: the part of `DrainRunner` that the other modules of the core may read."""

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
    def drained(self) -> bool:
        """True while a drain has nothing left to wait for."""

    def now(self) -> float:
        """Return the time in seconds, by the one clock of the drainer."""

    def lame_duck_end(self) -> float:
        """Return when the lame duck ends. With a quiet period, a new request puts that off."""

    def grace_end(self) -> float:
        """Return when work in flight is cancelled, after a stop. A new request may put it off."""

    def report(self) -> DrainReport:
        """Return the report of the drain up to now."""
