"""A verdict adds up what the trials saw, and is clean only when nothing at all went wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from graceful_asgi.check.counts import LOSS_KINDS, Answered, Counts, LoadResult, Lost, Unsent
from graceful_asgi.check.trial import Trial
from graceful_asgi.check.verdict import describe, judge

COMPLETE = Answered(status=200, reusable=True)


def trial(
    *,
    before: Counts | None = None,
    after: Counts | None = None,
    exit_code: int = 0,
    killed: bool = False,
    seconds_to_exit: float = 1.0,
) -> Trial:
    load = LoadResult(
        before=before or Counts(sent=10, served=10),
        after=after or Counts(sent=5, served=5),
        refused=3,
        slow=COMPLETE,
        stream=COMPLETE,
    )
    return Trial(load=load, exit_code=exit_code, seconds_to_exit=seconds_to_exit, killed=killed)


def test_a_trial_without_a_fault_is_clean_though_connections_were_refused() -> None:
    verdict = judge([trial()])
    assert verdict.clean
    assert verdict.lost_total == 0
    assert (verdict.served_before, verdict.served_after, verdict.refused) == (10, 5, 3)
    assert (verdict.slow, verdict.stream) == ("200 complete", "200 complete")


@pytest.mark.parametrize(
    "faulty",
    [
        trial(before=Counts(sent=1, lost={"cut body": 1})),
        trial(after=Counts(sent=1, lost={"reset on reuse": 1}, lost_on_reuse=1)),
        trial(after=Counts(unsent=1)),
        trial(before=Counts(sent=1, errors={500: 1})),
        trial(exit_code=1),
        trial(exit_code=-15),
        trial(killed=True),
    ],
)
def test_any_single_fault_in_any_trial_makes_the_verdict_not_clean(faulty: Trial) -> None:
    assert not judge([faulty]).clean
    assert not judge([trial(), faulty, trial()]).clean


def test_a_deliberate_rejection_is_no_fault() -> None:
    assert judge([trial(after=Counts(sent=2, rejected=2))]).clean


def test_losses_on_both_sides_of_the_signal_add_up() -> None:
    verdict = judge(
        [
            trial(
                before=Counts(sent=3, served=1, lost={"cut body": 2}, lost_on_reuse=1),
                after=Counts(sent=4, lost={"cut body": 1, "empty reply": 3}, lost_on_reuse=1),
            )
        ]
    )
    assert verdict.lost_total == 6
    assert verdict.lost == dict.fromkeys(LOSS_KINDS, 0) | {"cut body": 3, "empty reply": 3}
    assert (verdict.lost_on_reuse, verdict.lost_on_fresh) == (2, 4)
    assert verdict.sent == 7


def test_several_trials_give_sums_the_longest_exit_and_the_first_bad_code() -> None:
    slow_lost = trial(exit_code=-9, seconds_to_exit=4.0)
    slow_lost = replace(slow_lost, load=replace(slow_lost.load, slow=Lost("timeout", False)))
    verdict = judge([trial(), slow_lost, trial()])
    assert verdict.trials == 3
    assert verdict.served_before == 30
    assert verdict.seconds_to_exit == 4.0
    assert verdict.exit_code == -9
    assert verdict.slow == "2 x 200 complete, 1 x lost: timeout"


def test_outcomes_are_described_in_words() -> None:
    assert describe(None) == "not sent"
    assert describe(Answered(status=503, reusable=False)) == "503 complete"
    assert describe(Lost(kind="cut body", reused=True)) == "lost: cut body"
    assert describe(Unsent(reason="Broken pipe")) == "not sent: Broken pipe"


def test_a_verdict_is_json_with_its_derived_figures() -> None:
    faulty = trial(before=Counts(sent=3, served=1, errors={500: 1}, lost={"timeout": 1}))
    found = json.loads(json.dumps(judge([faulty]).as_dict()))
    assert found["clean"] is False
    assert found["sent"] == 8
    assert found["lost"]["total"] == found["lost"]["by_kind"]["timeout"] == 1
    assert found["errors"] == {"500": 1}


def test_no_trial_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least one"):
        judge([])
