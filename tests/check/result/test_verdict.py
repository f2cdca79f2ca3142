"""A verdict adds up what the trials saw, and is clean only when nothing at all went wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.trial import detail

from graceful_asgi._check.result.counts import (
    Answered,
    Counts,
    LoadResult,
    Lost,
    Rejected,
    Retryable,
    Unsent,
    Wrong,
)
from graceful_asgi._check.result.finding import Exit, Finding, outcome_text
from graceful_asgi._check.result.verdict import Trial, judge

COMPLETE = Finding("slow request", "passed", "200 complete")
CUT = Finding("slow request", "failed", "lost: cut body")


def trial(
    *findings: Finding,
    before: Counts | None = None,
    during: Counts | None = None,
    after: Counts | None = None,
    exit_code: int = 0,
    late: bool = False,
    seconds: float = 1.0,
    left_running: int = 0,
    still_open: bool = False,
) -> Trial:
    load = LoadResult(
        before=before or Counts(served=10),
        during=during or Counts(served=2),
        after=after or Counts(served=5),
        refused=3,
    )
    end = Exit(
        code=exit_code,
        seconds=seconds,
        late=late,
        left_running=left_running,
        still_open=still_open,
    )
    return Trial(load=load, end=end, findings=findings or (COMPLETE,))


def test_a_trial_without_a_fault_is_clean_though_connections_were_refused() -> None:
    verdict = judge([trial()])
    assert verdict.clean
    assert verdict.lost_total == 0
    assert (verdict.load.before.served, verdict.load.after.served, verdict.load.refused) == (
        10,
        5,
        3,
    )
    assert detail(verdict, "slow request") == "200 complete"
    assert detail(verdict, "streaming download") == "not run"


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        (trial(before=Counts(lost={"cut body": 1})), "1 request lost (1 cut body)"),
        (trial(during=Counts(lost={"cut body": 1})), "1 request lost"),
        (trial(after=Counts(lost={"reset on reuse": 1}, lost_on_reuse=1)), "1 request lost"),
        (trial(after=Counts(unsent=1)), "1 connection dead"),
        (trial(during=Counts(wrong={"status 503": 2})), "2 wrong answers (status 503)"),
        (trial(after=Counts(wrong={"empty body": 1})), "1 wrong answer (empty body)"),
        (trial(before=Counts(wrong={"status 500": 1})), "without being stopped"),
        (trial(still_open=True), "its port still accepts connections"),
        (trial(late=True), "not gone by the deadline in 1 of"),
        (trial(left_running=2), "2 processes left running"),
        (trial(CUT), "lost: cut body"),
    ],
)
def test_any_single_fault_in_any_trial_makes_the_verdict_not_clean(
    faulty: Trial, said: str
) -> None:
    for trials in ([faulty], [trial(), faulty, trial()]):
        verdict = judge(trials)
        assert not verdict.clean
        assert said in "; ".join(verdict.faults)


@pytest.mark.parametrize("code", [1, -15, 143])
def test_the_exit_code_alone_is_no_fault(code: int) -> None:
    """Most servers die of the signal they are sent, and lose nothing by that."""
    assert judge([trial(exit_code=code)]).clean


@pytest.mark.parametrize("harmless", [Counts(rejected=2), Counts(retryable=2)])
def test_what_was_rejected_on_purpose_or_can_be_sent_again_is_no_fault(harmless: Counts) -> None:
    verdict = judge([trial(after=harmless)])
    assert verdict.clean
    assert verdict.total.sent == 14


def test_losses_on_all_sides_of_the_signal_add_up() -> None:
    verdict = judge(
        [
            trial(
                before=Counts(served=1, lost={"cut body": 2}, lost_on_reuse=1),
                during=Counts(lost={"timeout": 1}),
                after=Counts(lost={"cut body": 1, "empty reply": 3}, lost_on_reuse=1),
            )
        ]
    )
    assert verdict.total.lost == {"cut body": 3, "empty reply": 3, "timeout": 1}
    assert (verdict.total.lost_on_reuse, verdict.lost_total) == (2, 7)
    assert verdict.total.sent == 8


def test_several_trials_give_sums_the_longest_exit_and_the_first_bad_code() -> None:
    verdict = judge([trial(), trial(CUT, exit_code=-9, seconds=4.0), trial()])
    assert verdict.trials == 3
    assert verdict.load.before.served == 30
    assert verdict.seconds_to_exit == 4.0
    assert verdict.exit_code == -9
    assert detail(verdict, "slow request") == "2 x 200 complete, 1 x lost: cut body"
    found = verdict.finding("slow request")
    assert found is not None
    assert found.failed


def test_a_scenario_that_was_not_run_is_not_passed() -> None:
    left_out = replace(COMPLETE, result="not run", detail="needs --slow-path")
    finding = judge([trial(left_out), trial(left_out)]).finding("slow request")
    assert finding is not None
    assert finding.result == "not run"


def test_a_finding_of_a_run_of_its_own_counts_and_its_requests_do_not() -> None:
    load = LoadResult(after=Counts(served=1, lost={"timeout": 1}))
    other = Finding("repeated signal", "failed", "1 lost", load)
    verdict = judge([trial()], others=[other])
    assert not verdict.clean
    assert verdict.lost_total == 0
    assert verdict.faults == ["repeated signal: 1 lost"]


def test_outcomes_are_outcome_textd_in_words() -> None:
    assert outcome_text(None) == "not sent"
    assert outcome_text(Answered(status=503, reusable=False)) == "503 complete"
    assert outcome_text(Rejected(status=503, reusable=True)) == "503 with Retry-After"
    wrong = Wrong(200, True, "empty body", "200, no body")
    assert outcome_text(wrong) == "wrong: empty body (200, no body)"
    assert outcome_text(Lost(kind="cut body", reused=True)) == "lost: cut body"
    assert outcome_text(Unsent(reason="Broken pipe")) == "not sent: Broken pipe"
    assert "safe to send again" in outcome_text(Retryable())


def test_a_verdict_is_json_with_its_derived_figures() -> None:
    faulty = trial(before=Counts(served=1, wrong={"status 500": 1}, lost={"timeout": 1}))
    found = json.loads(json.dumps(judge([faulty]).as_dict()))
    assert found["passed"] is False
    assert found["requests"]["total"]["sent"] == 10
    assert found["requests"]["before"]["lost_by_kind"]["timeout"] == 1
    assert found["requests"]["before"]["wrong_by_kind"] == {"status 500": 1}
    assert found["exits"] == [
        {"code": 0, "seconds": 1.0, "late": False, "left_running": 0, "still_open": False}
    ]


def test_no_trial_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least one"):
        judge([])
