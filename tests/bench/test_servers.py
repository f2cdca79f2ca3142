"""The table of the comparison: who lost what, and who did not take part, and why."""

from __future__ import annotations

from typing import Any

from check.result.test_verdict import trial

from graceful_asgi._check.result.counts import Counts
from graceful_asgi._check.result.verdict import Target
from graceful_asgi._check.server.command import Command

from .contestants import Entrant
from .servers import Line, report, table


def line(name: str, *trials: Any, reason: str = "", failure: str = "") -> Line:
    target = Target(Command((), name), trials=list(trials))
    return Line(Entrant(name, version=f"{name} 1.0", reason=reason), target, failure)


LINES = [
    line("leaky", trial(), trial(after=Counts(served=1000, lost={"cut body": 12}), exit_code=-15)),
    line("tight", trial(), trial(late=True)),
    line("absent", reason="absent is not installed"),
    line("broken", trial(), failure="broken did not answer"),
]


def test_who_loses_least_stands_first_and_who_was_not_run_last() -> None:
    rows = table(LINES).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "tight",
        "leaky",
        "absent",
        "broken",
    ]
    tight, leaky, absent, broken = rows
    assert "| **0** | 0 of 2 | 20 / 4 / 10 |" in tight
    assert "1.0 (1 x killed)" in tight
    assert "| 12 | 1 of 2 | 20 / 4 / 1,005 |" in leaky
    assert leaky.endswith("| 0, -15 (SIGTERM) |")
    assert "not run: absent is not installed" in absent
    assert "not run: broken did not answer" in broken
    assert len({row.count("|") for row in table(LINES).splitlines()}) == 1


def test_the_report_names_versions_and_rounds() -> None:
    text = report(LINES, 2, (12345, 5.0))
    assert "2 rounds on " in text
    assert "leaky 1.0, tight 1.0" in text
    assert "12,345 requests per second" in text
