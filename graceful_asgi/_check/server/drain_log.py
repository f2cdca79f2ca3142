"""Reads what a drain came to out of a log: the inverse of two lines of the journal. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ...report import DrainReport, StuckWork

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPORT: Final = re.compile(
    r"drain \[\d+\]: (?:clean|forced) after (?P<elapsed>[\d.]+) s \((?P<reason>.*?)\): "
    r"(?P<completed>\d+) completed, (?P<cancelled>\d+) cancelled, "
    r"(?P<aborted>\d+) aborted, (?P<rejected>\d+) rejected"
)
_STUCK: Final = re.compile(
    r"drain \[\d+\]: stuck: (?P<kind>http|websocket|task|lifespan) (?:(?P<method>[A-Z]+) )?"
    r"(?P<path>.*?) ?for (?P<age>[\d.]+) s, (?P<phase>.*?)(?:, at (?P<where>.*))?$",
    re.M,
)


def read_report(log: str) -> DrainReport | None:
    """The last report in `log`, with all stuck work named there; None: there is no report.

    Times are as the log rounds them.
    """
    reports = list(_REPORT.finditer(log))
    if not reports:
        return None
    return DrainReport(
        reason=reports[-1]["reason"],
        completed=int(reports[-1]["completed"]),
        cancelled=int(reports[-1]["cancelled"]),
        aborted=int(reports[-1]["aborted"]),
        rejected=int(reports[-1]["rejected"]),
        elapsed=float(reports[-1]["elapsed"]),
        stuck=tuple(_stuck(log)),
    )


def _stuck(log: str) -> Iterator[StuckWork]:
    for found in _STUCK.finditer(log):
        yield StuckWork(
            kind=found["kind"],  # type: ignore[arg-type]  # one of them, says the pattern
            method=found["method"] or "",
            path=found["path"],
            age=float(found["age"]),
            phase=found["phase"],
            where=found["where"] or "",
        )
