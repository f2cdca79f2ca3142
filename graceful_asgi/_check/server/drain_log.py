"""Reads a drain out of the server's log: the inverse of three lines of `graceful_asgi.log`."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final, get_args

from ...phase import Phase
from ...report import DrainReport, Kind, StuckWork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_REPORT: Final = re.compile(
    r"drain \[\d+\]: (?:clean|forced) after (?P<elapsed>[\d.]+) s \((?P<reason>.*?)\): "
    r"(?P<completed>\d+) completed, (?P<closed>\d+) closed, "
    r"(?P<cancelled>\d+) cancelled, (?P<aborted>\d+) aborted, (?P<rejected>\d+) rejected"
    r"(?:; (?P<server_errors>\d+) of the completed)?"
)
_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind)}
_STUCK: Final = re.compile(
    r"drain \[\d+\]: stuck: (?P<kind>http|websocket|task|lifespan) (?:(?P<method>[A-Z]+) )?"
    r"(?P<path>.*?) ?for (?P<age>[\d.]+) s, (?P<phase>.*?)(?:, at (?P<where>.*))?$",
    re.M,
)

_PHASES: Final = (Phase.LAME_DUCK, Phase.DRAINING, Phase.CANCELLING, Phase.CLEANUP)
"""The phases that take time. A server that serves or has stopped is not in a phase of its drain."""
_PHASE: Final = re.compile(
    rf"drain \[\d+\]: (?P<phase>{'|'.join(phase.value for phase in _PHASES)}) \("
)


class PhaseWatch:
    """Follows a log while it is written, and knows when each phase of a drain began.

    Of several processes the first to enter a phase counts. A log that is not this package's, or is
    written in another format, has no phases.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = ""
        self.began: dict[str, float] = {}
        """The names of the phases, each with the instant (monotonic) at which it was seen."""

    def look(self, now: float) -> None:
        """Take in what has been written since the last look."""
        with contextlib.suppress(OSError), self._path.open("rb") as log:
            log.seek(self._read)
            data = log.read()
            self._read += len(data)
            *lines, self._rest = (self._rest + data.decode("utf-8", "replace")).split("\n")
            for line in lines:
                if (found := _PHASE.search(line)) is not None:
                    self.began.setdefault(found["phase"], now)


def read_report(log: str) -> DrainReport | None:
    """Return the last report in `log`, with all stuck work named there; None: there is no report.

    Times are as the log rounds them.
    """
    reports = list(_REPORT.finditer(log))
    if not reports:
        return None
    return DrainReport(
        reason=reports[-1]["reason"],
        completed=int(reports[-1]["completed"]),
        closed=int(reports[-1]["closed"]),
        cancelled=int(reports[-1]["cancelled"]),
        aborted=int(reports[-1]["aborted"]),
        rejected=int(reports[-1]["rejected"]),
        elapsed=float(reports[-1]["elapsed"]),
        server_errors=int(reports[-1]["server_errors"] or 0),
        stuck=tuple(_stuck(log)),
    )


def _stuck(log: str) -> Iterator[StuckWork]:
    for found in _STUCK.finditer(log):
        yield StuckWork(
            kind=_KINDS[found["kind"]],
            method=found["method"] or "",
            path=found["path"],
            age=float(found["age"]),
            phase=found["phase"],
            where=found["where"] or "",
        )
