"""Warnings at startup about a policy that cannot hold."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from graceful_asgi import DrainPolicy
from graceful_asgi._servers import policy_check


@pytest.fixture
def captured(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="graceful_asgi")
    return caplog


def cautions(captured: pytest.LogCaptureFixture, policy: DrainPolicy) -> list[str]:
    policy_check.check(policy, 0.5)
    assert {record.levelname for record in captured.records} <= {"WARNING"}
    return [record.getMessage() for record in captured.records]


@pytest.mark.parametrize("given", [None, 27.5, 30.0])
def test_a_policy_that_fits_is_not_talked_about(
    captured: pytest.LogCaptureFixture, given: float | None
) -> None:
    assert not cautions(captured, DrainPolicy(termination_grace_period=given))


def test_a_policy_that_is_a_little_too_long_does_not_fit(
    captured: pytest.LogCaptureFixture,
) -> None:
    assert cautions(captured, DrainPolicy(termination_grace_period=27.4))


def test_a_policy_that_does_not_fit_is_cautioned_against_with_what_would(
    captured: pytest.LogCaptureFixture,
) -> None:
    (said,) = cautions(captured, DrainPolicy(termination_grace_period=20))
    for figure in ("0.5 s", "27.5 s", "20 s", "raise that to 27.5", "lower grace_period to 7.5"):
        assert figure in said


# -- others that give less


def test_what_gunicorn_gives_counts_as_well(captured: pytest.LogCaptureFixture) -> None:
    assert policy_check.shortfall(DrainPolicy(), 0.5, graceful_timeout=27.5) is None
    policy_check.check(DrainPolicy(), 0.5, graceful_timeout=26)
    (said,) = [record.getMessage() for record in captured.records]
    assert "gunicorn's graceful_timeout is 26 s: raise that to 27.5" in said
    assert "lower grace_period to 13.5" in said


def test_the_tightest_says_what_fits_all_in_one_warning(captured: pytest.LogCaptureFixture) -> None:
    policy = DrainPolicy(termination_grace_period=20)
    policy_check.check(policy, 0.5, graceful_timeout=25, timeout_graceful_shutdown=10)
    (said,) = [record.getMessage() for record in captured.records]
    assert "termination_grace_period is 20 s and gunicorn's graceful_timeout is 25 s" in said
    assert "raise both to 27.5, or lower grace_period to 7.5" in said
    assert "timeout_graceful_shutdown=10 has no effect" in said


@pytest.mark.parametrize("given", [0.5, 5, 12.4, 12.5, 13, 27])
def test_the_values_that_are_named_do_fit(given: float) -> None:
    policy = DrainPolicy(termination_grace_period=given)
    found = policy_check.shortfall(policy, 0.5)
    assert found is not None
    lowered = dataclasses.replace(policy, grace_period=max(0.0, found.grace_period))
    over = lowered.total_period + 0.5 - given
    assert over == pytest.approx(max(0.0, -found.grace_period))
    assert ("the other periods by" in str(found)) == (over > 0)
    raised = dataclasses.replace(policy, termination_grace_period=found.needed)
    assert policy_check.shortfall(raised, 0.5) is None


@pytest.mark.parametrize("given", [None, 15, 15.0])
def test_a_limit_of_uvicorns_that_says_the_same_is_not_talked_about(given: float | None) -> None:
    assert not policy_check.without_effect(DrainPolicy(), given)


@pytest.mark.parametrize("given", [10, 60])
def test_a_limit_of_uvicorns_has_no_effect_and_that_is_said(given: float) -> None:
    said = policy_check.without_effect(DrainPolicy(), given)
    assert f"timeout_graceful_shutdown={given} has no effect" in said
    assert "grace_period (15 s) takes its place" in said
