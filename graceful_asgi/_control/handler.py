"""What a process does when it is asked on its control socket, and what it says. It never waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .._core.begun_drain import BegunDrain
from ..phase import Phase
from .protocol import ProtocolError, Request, build_reply, parse_request
from .status import describe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core.runner import DrainRunner
    from .connection import Connection

PROGRESS_PERIOD: Final = 0.5
"""Seconds between two lines of progress, at the longest."""


class Desk:
    """Answers for one drainer. Used by one thread at a time, whichever that is."""

    def __init__(self, drainer: DrainRunner) -> None:
        self._drainer = drainer

    def answer(self, connection: Connection, line: bytes) -> None:
        """Do what *line* asks for, and say so."""
        try:
            request = parse_request(line)
        except ProtocolError as error:
            connection.say(build_reply("error", error=str(error)), last=True)
            return
        if request.command == "drain":
            self._drain(connection, request)
        elif request.command == "resume":
            drainer = self._drainer
            resumed = drainer.phase is not Phase.SERVING and drainer.resume()
            state = describe(drainer)
            connection.say(build_reply("resume", resumed=resumed, process=state), last=True)
        else:
            connection.say(build_reply("status", process=describe(self._drainer)), last=True)

    def _drain(self, connection: Connection, request: Request) -> None:
        drainer = self._drainer
        began = drainer.begin(request.reason, resume_after=request.resume_after)
        begun = BegunDrain(drainer)
        line = build_reply("drain", began=began, process=describe(drainer))
        connection.say(line, last=not request.wait)
        if request.wait:
            connection.begun = begun
            connection.progress_due = time.monotonic() + PROGRESS_PERIOD

    def tell_outcomes(self, connections: Iterable[Connection]) -> None:
        """Tell those who wait for a drain that has come out."""
        for connection in connections:
            if connection.begun is not None and (outcome := connection.begun.outcome()):
                connection.begun = None
                state = describe(self._drainer)
                connection.say(build_reply("outcome", outcome=outcome, process=state), last=True)

    def tell_progress(self, connections: Iterable[Connection]) -> None:
        """Tell those who wait how it goes on, every now and then."""
        now = time.monotonic()
        for connection in connections:
            if connection.begun is not None and now >= connection.progress_due:
                connection.progress_due = now + PROGRESS_PERIOD
                if connection.is_waiting:  # a peer that does not read misses some
                    connection.say(build_reply("progress", process=describe(self._drainer)))
