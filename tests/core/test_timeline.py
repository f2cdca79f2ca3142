"""Periods as deadlines: what counts from where."""

from __future__ import annotations

import math

import pytest

from graceful_asgi import DrainPolicy
from graceful_asgi._core.timeline import Timeline

POLICY = DrainPolicy(lame_duck_period=5, quiet_period=2)


def test_nothing_has_an_end_before_the_drain_begins() -> None:
    timeline = Timeline(POLICY)
    assert timeline.lame_duck_end() == math.inf
    assert timeline.deadline == math.inf
    assert timeline.elapsed(100) == 0


def test_the_lame_duck_ends_with_the_quiet_period_or_by_itself() -> None:
    timeline = Timeline(POLICY)
    timeline.begin(100)
    assert timeline.lame_duck_end() == 102
    for now in (101, 102, 103, 104):
        timeline.arrive(now)
    assert timeline.lame_duck_end() == 105
    assert timeline.lame_duck_left(101) == 4, "requests may put the quiet end off"


@pytest.mark.parametrize("cut_first", [False, True])
def test_a_cut_lame_duck_is_over_whichever_comes_first(cut_first: bool) -> None:
    timeline = Timeline(POLICY)
    if cut_first:
        timeline.cut_lame_duck(100)
    timeline.begin(100)
    if not cut_first:
        timeline.cut_lame_duck(100)
    assert timeline.lame_duck_end() == 100
    assert timeline.lame_duck_left(100) == 0


def test_a_phase_has_what_is_left_of_what_it_was_given() -> None:
    timeline = Timeline(POLICY)
    timeline.begin(100)
    timeline.allow(15, 105)
    assert timeline.left(110, 20) == 10
    assert timeline.left(110, 3) == 3
    assert timeline.left(200, 20) == 0


def test_the_time_it_took_stands_still_when_it_is_over() -> None:
    timeline = Timeline(POLICY)
    timeline.begin(100)
    assert timeline.elapsed(103) == 3
    timeline.ended = 107
    assert timeline.elapsed(200) == 7
