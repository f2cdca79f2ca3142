"""Pods that are replaced behind a network, whose clients learn of it late. Short versions.

`make rollout` replaces ten of each, with the lag of a real cluster.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.network import over

from . import pods
from .pods import Deployment, Hook, replace_pods

if TYPE_CHECKING:
    from pathlib import Path

    from support.network import Network

pytestmark = over(0.005)

PLAN = replace(pods.PLAN, keep_alive=10, think=0.2, fresh=40)
"""It leaves a slow machine time to start a pod meanwhile."""


@pytest.mark.parametrize(
    ("hook", "workers"), [("exec", 2), ("httpGet", 1), ("none", 1), ("none", 2)]
)
def test_no_request_is_lost_or_refused(
    hook: Hook, workers: int, network: Network, tmp_path: Path
) -> None:
    deployment = Deployment(hook=hook, workers=workers, lame_duck=3.0, longest_lag=0.5)
    replaced = replace_pods(deployment, network, tmp_path, times=1, plan=PLAN)
    assert replaced.exit_codes == [0], replaced.logs
    assert replaced.counted.lost == {}, replaced.counted
    assert replaced.counted.failed == {}
    assert replaced.counted.refused == 0
    assert replaced.counted.answered > 100


def test_without_a_lame_duck_the_clients_are_refused(network: Network, tmp_path: Path) -> None:
    """Some are: the lame duck is what covers the lag."""
    deployment = Deployment(hook="none", lame_duck=0.0, shortest_lag=3.0)
    replaced = replace_pods(deployment, network, tmp_path, times=1, plan=PLAN)
    assert replaced.counted.lost == {}, replaced.counted
    assert replaced.counted.refused > 0
