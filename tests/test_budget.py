"""What is said at startup of a policy that cannot hold."""

from __future__ import annotations

import logging

import pytest

from graceful_asgi import DrainPolicy, budget


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="graceful_asgi")
    return caplog


def cautions(log: pytest.LogCaptureFixture, policy: DrainPolicy) -> list[str]:
    budget.check(policy, 0.5)
    assert {record.levelname for record in log.records} <= {"WARNING"}
    return [record.getMessage() for record in log.records]


@pytest.mark.parametrize("given", [None, 27.5, 30.0])
def test_a_policy_that_fits_is_not_talked_about(
    log: pytest.LogCaptureFixture, given: float | None
) -> None:
    assert not cautions(log, DrainPolicy(termination_grace_period=given))


def test_a_policy_that_is_a_little_too_long_does_not_fit(log: pytest.LogCaptureFixture) -> None:
    assert cautions(log, DrainPolicy(termination_grace_period=27.4))


def test_a_policy_that_does_not_fit_is_cautioned_against_with_what_would(
    log: pytest.LogCaptureFixture,
) -> None:
    (said,) = cautions(log, DrainPolicy(termination_grace_period=20))
    for figure in ("0.5 s", "27.5 s", "20 s", "raise that to 27.5", "lower grace_period to 7.5"):
        assert figure in said
