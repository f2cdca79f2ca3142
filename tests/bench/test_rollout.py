"""A roll-out counts as worse than that of plain uvicorn by these rules."""

from __future__ import annotations

from collections import Counter

import pytest
from support.traffic import Counted

from .rollout import RollOut, Seen, chance_of, worse


def rolled_out(bad: int, seconds: float, *, checked: bool = False) -> RollOut:
    counted = Counted(answered=1000, failed=Counter({503: bad}))
    return RollOut([Seen("envoy", checked, quick=counted)], seconds)


@pytest.mark.parametrize(
    ("counts", "seconds", "chance"),
    [
        ((0, 0), (1.0, 1.0), 1.0),
        ((1, 0), (1.0, 1.0), 0.5),
        ((2, 0), (1.0, 3.0), 1 / 16),
        ((1, 1), (1.0, 1.0), 0.75),
    ],
)
def test_the_chance_of_a_count_beside_another(
    counts: tuple[int, int], seconds: tuple[float, float], chance: float
) -> None:
    assert chance_of(counts, seconds) == pytest.approx(chance)


def test_a_rate_far_above_that_of_plain_uvicorn_is_worse_and_twice_the_time_is_not() -> None:
    plain = rolled_out(5, 10.0)
    assert list(worse(rolled_out(10, 20.0), plain)) == []
    assert len(list(worse(rolled_out(30, 10.0), plain))) == 1


def test_with_health_checks_no_failure_is_allowed() -> None:
    assert list(worse(rolled_out(0, 10.0, checked=True), rolled_out(5, 10.0))) == []
    assert len(list(worse(rolled_out(1, 10.0, checked=True), rolled_out(5, 10.0)))) == 1
