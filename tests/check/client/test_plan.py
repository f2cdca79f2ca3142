"""A plan that makes no sense is refused where it is written."""

from __future__ import annotations

import math

import pytest

from graceful_asgi._check.client.plan import LoadPlan


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_period_that_is_negative_or_not_finite_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="answer_period"):
        LoadPlan(answer_period=value)


def test_a_negative_count_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="fresh_clients=-1"):
        LoadPlan(fresh_clients=-1)
