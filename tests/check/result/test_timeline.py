"""A run in slices: they begin at the signal, and their sums are those of the counts."""

from __future__ import annotations

import pytest

from graceful_asgi._check.result.timeline import Timeline


def test_slices_begin_at_the_signal_and_add_up() -> None:
    timeline = Timeline()
    for second in (9.85, 9.97, 10.01, 10.02):
        timeline.written(second)
    timeline.signalled_at = 10.0
    timeline.ended(9.95, answered=True, failed=False)
    timeline.ended(10.03, answered=True, failed=False)
    timeline.ended(10.25, answered=False, failed=True)
    timeline.refused(10.4)
    timeline.refused(10.5)
    samples = timeline.samples()
    assert [round(sample.second, 3) for sample in samples] == [-0.2, -0.1, 0.0, 0.1, 0.2]
    assert [sample.answered for sample in samples] == [0, 1, 1, 0, 0]
    assert [sample.failed for sample in samples] == [0, 0, 0, 0, 1]
    assert [sample.in_flight for sample in samples] == [1, 1, 2, 2, 1]
    assert timeline.first_refusal == pytest.approx(0.4)


def test_there_are_no_slices_without_a_signal_or_a_request() -> None:
    timeline = Timeline()
    assert timeline.samples() == []
    assert timeline.first_refusal is None
    timeline.written(1.0)
    assert timeline.samples() == []
