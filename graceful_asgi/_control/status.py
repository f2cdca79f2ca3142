"""The state of one process, as its control socket reports it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from .._core.begun_drain import BegunDrain
from ..phase import Phase

if TYPE_CHECKING:
    from .._core.runner import DrainRunner
    from ..report import StuckWork

MAX_TEXT: Final = 500
"""Characters of a path, which a client chose, and of a reason."""


def process_status(drainer: DrainRunner) -> dict[str, Any]:
    """Return the state of this moment, for JSON. The protocol replaces infinite numbers.

    Safe from any thread, with the event loop in any state.
    """
    statistics = drainer.statistics()
    is_lame_duck = statistics.phase is Phase.LAME_DUCK
    return {
        "pid": os.getpid(),
        "server": drainer.context.pid,
        "phase": statistics.phase.value,
        "stopping": drainer.state.stopping,
        "drained": drainer.drained,
        "reason": statistics.reason[:MAX_TEXT],
        "in_flight": statistics.in_flight,
        "oldest": None if statistics.oldest is None else _oldest(statistics.oldest),
        "completed": statistics.completed,
        "closed": statistics.closed,
        "cancelled": statistics.cancelled,
        "aborted": statistics.aborted,
        "rejected": statistics.rejected,
        "server_errors": statistics.server_errors,
        "elapsed": statistics.elapsed,
        "time_left": statistics.time_left,
        "lame_duck_left": drainer.state.lame_duck_left(drainer.now()) if is_lame_duck else None,
        "gives_up_in": BegunDrain(drainer).gives_up_in() if drainer.state.held else None,
        "undone_in": drainer.undo_in(),
    }


def _oldest(work: StuckWork) -> dict[str, Any]:
    return {
        "kind": work.kind,
        "method": work.method[:MAX_TEXT],
        "path": work.path[:MAX_TEXT],
        "age": work.age,
        "phase": work.phase,
        "where": work.where[:MAX_TEXT],
    }
