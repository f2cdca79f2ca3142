"""A load has as many open files as it needs, or says that it cannot have them."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest

from graceful_asgi._check.client.limits import allow_connections
from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.errors import CheckError

PLAN = LoadPlan(keep_alive_clients=500, fresh_clients=372)  # 1000 files, with the other 128


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits that were set; the first is the one that was there."""
    found = [(256, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: found[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: found.append(limit))
    return found


def test_the_soft_limit_is_raised_to_what_is_needed_and_no_further(
    limits: list[tuple[int, int]],
) -> None:
    allow_connections(PLAN)
    allow_connections(PLAN)
    assert limits == [(256, 4096), (1000, 4096)]


def test_a_connection_that_is_far_away_needs_three_files(limits: list[tuple[int, int]]) -> None:
    """Its own, and both ends of the relay."""
    allow_connections(replace(PLAN, latency=0.02))
    assert limits == [(256, 4096), (3000, 4096)]


@pytest.mark.parametrize("enough", [(1000, 1000), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)])
def test_a_limit_that_is_high_enough_is_left_alone(
    limits: list[tuple[int, int]], enough: tuple[int, int]
) -> None:
    limits[:] = [enough]
    allow_connections(PLAN)
    assert limits == [enough]


def test_a_hard_limit_that_is_too_low_is_named(limits: list[tuple[int, int]]) -> None:
    limits[:] = [(256, 999)]
    with pytest.raises(CheckError, match=r"500 \+ 372 clients need 1000 open files.* is 999"):
        allow_connections(PLAN)
    assert limits == [(256, 999)]
