"""The table of servers on which the middleware is passive."""

from __future__ import annotations

from check.result.test_verdict import trial

from graceful_asgi._check.result.counts import Counts

from .passive import ALONE, PASSIVE, direct_table, entrants
from .test_servers import line


def test_each_server_has_a_cell_for_each_way() -> None:
    lossy = trial(after=Counts(served=1000, lost={"cut body": 12}))
    lines = [
        line(f"hypercorn, {ALONE}", lossy, trial()),
        line(f"hypercorn, {PASSIVE}", trial(), trial()),
        line(f"hypercorn -k trio, {ALONE}", reason="trio is not installed"),
        line(f"hypercorn -k trio, {PASSIVE}", failure="did not answer"),
    ]
    rows = direct_table(lines, 2).splitlines()[2:]
    assert rows == [
        "| hypercorn | 12 (1 of 2 rounds) | **0** |",
        "| hypercorn -k trio | not run: trio is not installed | not run: did not answer |",
    ]


def test_every_server_is_run_alone_and_with_the_middleware() -> None:
    names = [entrant.name for entrant in entrants()]
    assert len(names) == len(set(names))
    assert {name.rpartition(", ")[2] for name in names} == {ALONE, PASSIVE}
