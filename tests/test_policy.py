"""The fields of a policy, where their values come from, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful_asgi import DrainPolicy
from graceful_asgi.errors import GracefulError, PolicyError

DEFAULTS: dict[str, Any] = {
    "lame_duck_period": 5.0,
    "quiet_period": None,
    "grace_period": 15.0,
    "cancel_period": 2.0,
    "cleanup_period": 5.0,
    "new_requests": "serve",
    "websockets": "close",
    "event_streams": "close",
    "drain_on_unhandled_exception": False,
    "termination_grace_period": None,
}
PERIODS = ["lame_duck_period", "grace_period", "cancel_period", "cleanup_period"]
PERIODS_OR_NONE = ["quiet_period", "termination_grace_period"]
CHOICES = {
    "new_requests": ["serve", "reject"],
    "websockets": ["close", "finish"],
    "event_streams": ["close", "finish"],
}
NO_PERIOD = [-1, -0.001, math.nan, math.inf, -math.inf, True, "5", b"5", []]


def policy(**fields: Any) -> DrainPolicy:
    """Make one as an untyped caller would."""
    return DrainPolicy(**fields)


def values(made: DrainPolicy) -> dict[str, Any]:
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}


def test_the_defaults_are_the_documented_ones() -> None:
    assert values(DrainPolicy()) == DEFAULTS


def test_the_defaults_end_before_kubernetes_kills() -> None:
    assert DrainPolicy().total_period == 27.0
    assert DrainPolicy().total_period < 28.0


def test_the_total_is_all_the_phases_one_after_the_other() -> None:
    made = DrainPolicy(
        lame_duck_period=1, grace_period=10, cancel_period=100, cleanup_period=1000, quiet_period=5
    )
    assert made.total_period == 1111.0


@pytest.mark.parametrize("name", PERIODS + PERIODS_OR_NONE)
@pytest.mark.parametrize("value", [0, 0.0, 0.25, 7, 1e6])
def test_a_period_is_any_finite_number_of_seconds_from_0_on(name: str, value: float) -> None:
    held = getattr(policy(**{name: value}), name)
    assert held == value
    assert type(held) is float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(PERIODS, [*NO_PERIOD, None]),
        *itertools.product(PERIODS_OR_NONE, NO_PERIOD),
        *itertools.product(CHOICES, ["", "Serve", "no", None, 1, True, ["serve"]]),
        *itertools.product(["drain_on_unhandled_exception"], [0, 1, "true", None]),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_with_the_field_the_value_and_what_is_allowed(
    name: str, value: object
) -> None:
    with pytest.raises(PolicyError, match=f"^{name}=.*; allowed: .+") as raised:
        policy(**{name: value})
    assert repr(value)[:20] in str(raised.value)


@pytest.mark.parametrize(
    ("name", "choice"), [(name, choice) for name, both in CHOICES.items() for choice in both]
)
def test_a_choice_is_held_and_named_where_another_is_refused(name: str, choice: str) -> None:
    assert getattr(policy(**{name: choice}), name) == choice
    with pytest.raises(PolicyError, match=repr(choice)):
        policy(**{name: "other"})


@pytest.mark.parametrize("name", PERIODS + PERIODS_OR_NONE)
def test_a_number_too_large_for_a_float_is_refused_like_infinity(name: str) -> None:
    with pytest.raises(PolicyError, match=f"^{name}="):
        policy(**{name: 10**400})


def test_a_bad_value_is_a_value_error_and_one_of_this_package() -> None:
    assert issubclass(PolicyError, ValueError)
    assert issubclass(PolicyError, GracefulError)


def test_a_misspelt_field_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(PolicyError, match=r"'grace_perod'.*20.*grace_period"):
        policy(grace_perod=20)


def test_the_signature_shows_the_fields_and_their_defaults() -> None:
    shown = inspect.signature(DrainPolicy).parameters
    assert {name: each.default for name, each in shown.items()} == DEFAULTS
    assert {each.kind for each in shown.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_fields_are_given_by_name_only() -> None:
    make: Any = DrainPolicy
    with pytest.raises(TypeError):
        make(5.0)


@given(st.sampled_from(PERIODS + PERIODS_OR_NONE), st.floats() | st.integers(-(10**300), 10**300))
def test_no_number_gets_in_that_no_clock_could_wait_for(name: str, value: float) -> None:
    try:
        held = getattr(policy(**{name: value}), name)
    except PolicyError:
        assert not 0 <= value < math.inf
    else:
        assert math.isfinite(held)
        assert held >= 0


# The environment


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("GRACEFUL_LAME_DUCK_PERIOD", "10", 10.0),
        ("GRACEFUL_QUIET_PERIOD", "0.5", 0.5),
        ("GRACEFUL_QUIET_PERIOD", "", None),
        ("GRACEFUL_QUIET_PERIOD", "none", None),
        ("GRACEFUL_GRACE_PERIOD", " 2.5 ", 2.5),
        ("GRACEFUL_CANCEL_PERIOD", "1e1", 10.0),
        ("GRACEFUL_CLEANUP_PERIOD", "0", 0.0),
        ("GRACEFUL_NEW_REQUESTS", "reject", "reject"),
        ("GRACEFUL_WEBSOCKETS", "finish", "finish"),
        ("GRACEFUL_EVENT_STREAMS", "finish", "finish"),
        *(("GRACEFUL_DRAIN_ON_UNHANDLED_EXCEPTION", text, True) for text in ("1", "true", "Yes")),
        *(("GRACEFUL_DRAIN_ON_UNHANDLED_EXCEPTION", text, False) for text in ("0", "no", "OFF")),
        ("GRACEFUL_TERMINATION_GRACE_PERIOD", "60", 60.0),
        ("GRACEFUL_TERMINATION_GRACE_PERIOD", "None", None),
    ],
)
def test_a_variable_sets_its_field_and_no_other(variable: str, text: str, value: object) -> None:
    field = variable.removeprefix("GRACEFUL_").lower()
    assert values(DrainPolicy.from_env({variable: text})) == {**DEFAULTS, field: value}


def test_every_field_can_be_set_by_a_variable() -> None:
    texts = dict.fromkeys(PERIODS + PERIODS_OR_NONE, "3")
    texts |= {"new_requests": "reject", "websockets": "finish", "event_streams": "finish"}
    texts["drain_on_unhandled_exception"] = "on"
    made = DrainPolicy.from_env({f"GRACEFUL_{name.upper()}": text for name, text in texts.items()})
    for name, value in values(made).items():
        assert value != DEFAULTS[name], name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *itertools.product(PERIODS, ["", "none", "-1", "nan", "inf", "5s", "1,5"]),
        *itertools.product(PERIODS_OR_NONE, ["-1", "nan", "inf", "soon"]),
        *itertools.product(CHOICES, ["", "REJECT!", "none"]),
        *itertools.product(["drain_on_unhandled_exception"], ["", "maybe", "2"]),
    ],
)
def test_a_bad_variable_is_refused_under_its_own_name(name: str, text: str) -> None:
    variable = f"GRACEFUL_{name.upper()}"
    with pytest.raises(PolicyError, match=f"^{variable}=.*; allowed: .+") as raised:
        DrainPolicy.from_env({variable: text})
    assert text in str(raised.value)


def test_variables_of_others_are_left_alone() -> None:
    environ = {"GRACEFUL_SHUTDOWN": "yes", "GRACEFUL_": "?", "GRACE_PERIOD": "1", "grace": "x"}
    assert DrainPolicy.from_env(environ) == DrainPolicy()


def test_without_an_argument_the_environment_of_the_process_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRACEFUL_GRACE_PERIOD", "42")
    assert DrainPolicy.from_env().grace_period == 42.0
    assert DrainPolicy().grace_period == 15.0


# A value among values


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_policy_cannot_be_changed(name: str) -> None:
    made: Any = DrainPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, 1.0)


def test_a_policy_with_one_field_replaced_is_another_one() -> None:
    made = dataclasses.replace(DrainPolicy(), grace_period=1)
    assert made.grace_period == 1.0
    assert made != DrainPolicy()
    with pytest.raises(PolicyError, match="grace_period=-1"):
        dataclasses.replace(made, grace_period=-1)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))]
)
def test_a_copy_is_equal_and_hashes_the_same(duplicate: Any) -> None:
    made = DrainPolicy(quiet_period=1, new_requests="reject")
    assert duplicate(made) == made
    assert hash(duplicate(made)) == hash(made)
