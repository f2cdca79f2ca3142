"""`DrainView`: a drain as it stands, and every question about it. Nothing here changes a drain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..event_loop import running_clock
from ..phase import Phase
from .drain import Drain
from .notifier import Notifier
from .record import DrainRecord
from .work import InFlight, Work

if TYPE_CHECKING:
    import asyncio

    from .._diagnostics.loop_monitor import LoopMonitor
    from ..event_loop import Clock
    from ..policy import DrainPolicy
    from ..report import DrainReport, DrainStatistics


class DrainView:
    """The reading half of `DrainRunner`. Safe from any thread and in a signal handler."""

    def __init__(self, policy: DrainPolicy, clock: Clock | None) -> None:
        self.in_flight = InFlight(clock or self._first_time)
        self.notifier = Notifier()
        self.record = DrainRecord(self.in_flight)
        self.lifespan: Work | None = None
        """The app's startup or shutdown, while that runs. Not counted as in flight."""
        self.loop_monitor: LoopMonitor | None = None
        self._last_arrival = -math.inf
        self._show(Drain(policy))

    def _show(self, state: Drain) -> None:
        """Show *state* from now on, with plain copies of what each request reads."""
        self.state = state
        self.phase = state.phase
        self.serving = state.phase is Phase.SERVING
        self.policy = state.policy

    @property
    def drained(self) -> bool:
        """True while a drain has nothing left to wait for."""
        if self.phase in (Phase.CLEANUP, Phase.STOPPED):
            return True
        if self.phase is Phase.SERVING or self.in_flight:
            return False
        return self.phase is not Phase.LAME_DUCK or self.now() >= self.lame_duck_end()

    def now(self) -> float:
        """Return the time in seconds, by the one clock of this drainer."""
        return self.in_flight.clock()

    def time_left(self) -> float:
        """Return the seconds until work is cancelled; infinite before a stop."""
        return self.state.time_left(self.now())

    def whole_time_left(self) -> float:
        """Return the seconds until the last phase has to end; infinite before a stop."""
        return self.state.whole_time_left(self.now())

    def lame_duck_end(self) -> float:
        """Return when the lame duck ends. With a quiet period, a new request puts that off."""
        return self.state.lame_duck_end(self._last_arrival)

    def grace_end(self) -> float:
        """Return when work in flight is cancelled, after a stop. A new request may put it off."""
        return self.state.grace_end(self._last_arrival)

    def undo_in(self) -> float | None:
        """Return the seconds until the drain is undone; None where it will not be."""
        left = self.state.undo_at - self.now()
        return None if math.isinf(left) else max(0.0, left)

    def statistics(self, *, leave_out: asyncio.Task[Any] | None = None) -> DrainStatistics:
        """Return the state of this moment. See `DrainRecord.statistics`."""
        return self.record.statistics(self.state, self.now(), leave_out=leave_out)

    def report(self) -> DrainReport:
        """Return the report of the drain up to now."""
        return self.record.report(self.state, self.now())

    def _first_time(self) -> float:
        # The first caller runs on the event loop, if there is one, and so knows its clock.
        self.in_flight.clock = running_clock()
        return self.in_flight.clock()
