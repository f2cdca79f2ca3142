"""`RequestHandler`: does what a peer of the control socket asks, and replies. It never waits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from .._core.begun_drain import BegunDrain
from ..event_loop import monotonic
from ..phase import Phase
from .protocol import ControlRequest, ProtocolError, build_reply, parse_request

if TYPE_CHECKING:
    from collections.abc import Collection

    from .._core.runner import DrainRunner
    from ..report import StuckWork
    from .connection import ControlConnection
    from .protocol import Kind

PROGRESS_PERIOD: Final = 0.5
"""Seconds between two lines of progress, at the longest."""

MAX_WAITING: Final = 64
"""Connections that may wait for the outcome of a drain, at the same time."""

MAX_TEXT: Final = 500
"""Characters of a path, which a client chose, and of a reason."""


class RequestHandler:
    """Handles the requests for one drainer. For one thread at a time, whichever that is.

    The caller keeps *connections*, the open ones, up to date.
    """

    def __init__(self, drainer: DrainRunner, connections: Collection[ControlConnection]) -> None:
        self._drainer = drainer
        self._connections = connections

    def handle(self, connection: ControlConnection, line: bytes) -> None:
        """Carry out the command in *line*, and reply."""
        try:
            request = parse_request(line)
        except ProtocolError as error:
            connection.send_error(str(error))
            return
        if request.command == "drain":
            self._drain(connection, request)
        elif request.command == "resume":
            drainer = self._drainer
            resumed = drainer.phase is not Phase.SERVING and drainer.resume()
            self._send_status(connection, "resume", resumed=resumed)
        else:
            self._send_status(connection, "status")

    def _drain(self, connection: ControlConnection, request: ControlRequest) -> None:
        drainer = self._drainer
        waiting = sum(each.begun is not None for each in self._connections)
        if request.wait and waiting >= MAX_WAITING:
            connection.send_error(f"{waiting} clients wait for a drain already")
            return
        began = drainer.begin(request.reason, resume_after=request.resume_after)
        begun = BegunDrain(drainer)
        self._send_status(connection, "drain", last=not request.wait, began=began)
        if request.wait:
            connection.begun = begun
            connection.progress_due = monotonic() + PROGRESS_PERIOD

    def send_outcomes(self) -> None:
        """Reply to every peer whose drain has its outcome."""
        for connection in self._connections:
            if connection.begun is not None and (outcome := connection.begun.outcome()):
                connection.begun = None
                self._send_status(connection, "outcome", outcome=outcome)

    def send_progress(self) -> None:
        """Send a line of progress to every peer that waits and has had none for a while."""
        now = monotonic()
        for connection in self._connections:
            if connection.begun is not None and now >= connection.progress_due:
                connection.progress_due = now + PROGRESS_PERIOD
                if connection.is_waiting:  # a peer that does not read misses some lines
                    self._send_status(connection, "progress", last=False)

    def _send_status(
        self, connection: ControlConnection, kind: Kind, *, last: bool = True, **fields: object
    ) -> None:
        line = build_reply(kind, **fields, process=process_status(self._drainer))
        connection.send(line, last=last)


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
