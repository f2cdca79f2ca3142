"""What an operator gives wins over what the app says; what was not given leaves the app its own."""

from __future__ import annotations

import pytest

from graceful_asgi import DrainPolicy, Probes
from graceful_asgi._asgi.options import Overrides
from graceful_asgi.errors import PolicyError

TOKEN = "a token that is long enough"


def test_only_what_the_environment_gives_is_overridden() -> None:
    overrides = Overrides.from_env(
        {
            "GRACEFUL_GRACE_PERIOD": "9",
            "GRACEFUL_QUIET_PERIOD": "none",
            "GRACEFUL_READINESS": "/readyz",
            "GRACEFUL_LIVENESS": "",
            "GRACEFUL_DRAIN_TOKEN": TOKEN,
            "GRACEFUL_OTHER": "somebody else's",
        }
    )
    own = DrainPolicy(grace_period=1, quiet_period=2, cancel_period=3)
    assert overrides.policy_over(own) == DrainPolicy(grace_period=9, cancel_period=3)
    probes = overrides.probes_over(Probes(liveness="/live", readiness="/ready"))
    assert probes == Probes(liveness="/live", readiness="/readyz", drain_token=TOKEN)


def test_what_is_given_later_wins() -> None:
    overrides = Overrides.from_env({"GRACEFUL_GRACE_PERIOD": "9", "GRACEFUL_CANCEL_PERIOD": "8"})
    updated = overrides.updated(policy={"grace_period": 7.0}, probes={"readiness": "/r"})
    assert updated.policy_over(DrainPolicy()) == DrainPolicy(grace_period=7, cancel_period=8)
    assert updated.probes_over(None) == Probes(readiness="/r")


def test_an_app_without_probes_keeps_none_where_none_are_given() -> None:
    assert Overrides.from_env({}).probes_over(None) is None


def test_a_bad_value_in_the_environment_names_its_variable() -> None:
    with pytest.raises(PolicyError, match="GRACEFUL_GRACE_PERIOD='soon' is not allowed"):
        Overrides.from_env({"GRACEFUL_GRACE_PERIOD": "soon"})


def test_probes_that_do_not_go_together_are_refused_as_a_whole() -> None:
    with pytest.raises(PolicyError, match="without drain_token"):
        Overrides.from_env({"GRACEFUL_DRAIN": "/drain"}).probes_over(None)


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(Overrides(probes={"drain_token": TOKEN}))
