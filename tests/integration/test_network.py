"""Stops behind a network that takes its time. On loopback no handshake lasts long enough to be cut.

Short versions: `make network` counts 100 000 requests of each server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.network import over

from .networked import Case, stop_under_traffic

if TYPE_CHECKING:
    from support.network import Network

    from .networked import Stopped

CASES = [
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


def test_no_request_is_lost_at_any_distance(network: Network) -> None:
    assert_nothing_lost(stop_under_traffic(Case(), network))


@pytest.mark.parametrize(("network", "case"), CASES, indirect=["network"], ids=str)
def test_no_request_is_lost(network: Network, case: Case) -> None:
    assert_nothing_lost(stop_under_traffic(case, network))


def assert_nothing_lost(stopped: Stopped) -> None:
    assert stopped.counted.lost == {}, stopped.counted
    assert stopped.counted.failed == {}
    assert stopped.counted.answered > 50
    assert stopped.exit_code == 0


@over(0.02)
@pytest.mark.parametrize("workers", [1, 2])
def test_plain_uvicorn_loses_some_in_the_same_traffic(workers: int, network: Network) -> None:
    """It is a matter of chance: now and then nobody is connecting at the moment of a stop."""
    case = Case(program="plain uvicorn", workers=workers)
    assert any(stop_under_traffic(case, network).counted.lost.total() for _ in range(5))


@over(0.0)
def test_a_stop_takes_no_longer_than_the_network(network: Network) -> None:
    """Without a delay nobody is dropped, who would try again after a second.

    One may be: whose packet is on its way through the kernel as the listener stops to accept.
    """
    stopped = stop_under_traffic(Case(), network)
    assert stopped.tried_again <= 1, stopped.counted
