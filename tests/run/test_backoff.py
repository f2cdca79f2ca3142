"""The pause before a supervisor starts the next worker after a loss."""

from __future__ import annotations

from graceful_asgi._run.worker_process import CALM_PERIOD, LONGEST_PAUSE, Backoff


def test_the_first_loss_costs_no_pause() -> None:
    backoff = Backoff()
    assert backoff.until < 0
    backoff.note_loss(100.0)
    assert backoff.until == 100.0


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff()
    pauses = []
    for _ in range(12):
        backoff.note_loss(100.0)
        pauses.append(backoff.until - 100.0)
    assert pauses[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE
    assert pauses == sorted(pauses)


def test_a_calm_time_makes_the_next_loss_the_first() -> None:
    backoff = Backoff()
    for now in (100.0, 101.0, 102.0):
        backoff.note_loss(now)
    backoff.note_loss(102.0 + CALM_PERIOD + 1)
    assert backoff.until == 102.0 + CALM_PERIOD + 1
