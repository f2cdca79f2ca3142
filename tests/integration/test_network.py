"""Stops behind a network that takes its time. On loopback no handshake lasts long enough to be cut.

Short versions: `make network` counts 100 000 requests of each server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.network import network

from .networked import Case, stop_under_traffic

if TYPE_CHECKING:
    from pathlib import Path

CASES = [
    (0.0, Case()),
    (0.02, Case(loop="uvloop", ipv6=True, privileged=False)),
    (0.15, Case(lame_duck=0.5)),
    (0.15, Case(stop="SIGINT", privileged=False)),
    (0.02, Case(program="run", workers=2)),
    (0.02, Case(program="run", workers=2, stop="drain, SIGTERM", privileged=False)),
    (0.15, Case(program="run", workers=2, lame_duck=0.5, loop="uvloop")),
    (0.02, Case(workers=2)),
    (0.02, Case(workers=2, privileged=False, loop="uvloop")),
    (0.15, Case(workers=2, privileged=False)),
]


@pytest.mark.parametrize(("delay", "case"), CASES, ids=lambda value: str(value))
def test_no_request_is_lost(delay: float, case: Case, tmp_path: Path) -> None:
    with network(delay) as made:
        stopped = stop_under_traffic(case, made, tmp_path)
    assert stopped.counted.lost == {}, stopped.counted
    assert stopped.counted.failed == {}
    assert stopped.counted.answered > 50
    assert stopped.exit_code == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_plain_uvicorn_loses_some_in_the_same_traffic(workers: int, tmp_path: Path) -> None:
    with network(0.02) as made:
        case = Case(program="plain uvicorn", workers=workers)
        assert stop_under_traffic(case, made, tmp_path).counted.lost.total() > 0


def test_a_stop_takes_no_longer_than_the_network(tmp_path: Path) -> None:
    """Without a delay nobody is dropped, who would try again after a second."""
    with network(0.0) as made:
        stopped = stop_under_traffic(Case(), made, tmp_path)
    assert stopped.counted.slower_than(0.5) == 0, stopped.counted
