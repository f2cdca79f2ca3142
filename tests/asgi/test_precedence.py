"""One table of options; the command line wins over the environment, over code, over the default."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware
from graceful_asgi._asgi.precedence import OPTIONS, CodeOptions, ServerSettings, misspelt, resolve
from graceful_asgi.errors import GracefulError, MisuseError, PolicyError
from graceful_asgi.policy import POLICY_OPTIONS, PolicyFields

TOKEN = "a token that is long enough"


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def code(policy: object = None, drainer: object = None, ready: Any = None, **flat: Any) -> Any:
    """Return what an app's code comes to that gives the middleware these keywords."""
    return CodeOptions.read(flat, policy=policy, drainer=drainer, ready=ready)


# One table


def test_every_option_is_a_keyword_of_the_middleware() -> None:
    keywords = inspect.signature(GracefulMiddleware).parameters
    assert set(OPTIONS) == {*keywords} - {"app", "policy", "drainer", "ready", "policy_fields"} | {
        *POLICY_OPTIONS
    }


def test_the_keywords_for_type_checkers_are_the_fields_of_the_policy() -> None:
    hints = typing.get_type_hints(DrainPolicy)
    assert typing.get_type_hints(PolicyFields) == {name: hints[name] for name in POLICY_OPTIONS}
    assert not PolicyFields.__required_keys__


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_says_what_it_means_and_allows(name: str) -> None:
    option = OPTIONS[name]
    assert option.meaning.endswith(".")
    assert option.summary in option.meaning
    assert option.kind.allowed
    assert option.check(option.default) == option.default
    assert (option.variable, option.flag) == (
        f"GRACEFUL_{name.upper()}",
        f"--{name.replace('_', '-')}",
    )


# Who wins


def test_the_command_line_wins_over_the_environment_over_code_option_by_option() -> None:
    given = code(
        lame_duck_period=1, quiet_period=1, grace_period=1, liveness_path="/c", drain_token=TOKEN
    )
    environ = {
        "GRACEFUL_QUIET_PERIOD": "none",
        "GRACEFUL_GRACE_PERIOD": "2",
        "GRACEFUL_CANCEL_PERIOD": "2",
        "GRACEFUL_READINESS_PATH": "/e",
        "GRACEFUL_DRAIN_PATH": "/e/drain",
        "GRACEFUL_OTHER": "somebody else's",
    }
    line = {"grace_period": 3.0, "websockets": "finish", "drain_path": "/l/drain"}
    settings = resolve(given, environ, line)
    assert not settings.faults
    assert settings.policy == DrainPolicy(
        lame_duck_period=1, quiet_period=None, grace_period=3, cancel_period=2, websockets="finish"
    )
    endpoints = settings.endpoints
    assert endpoints.readiness_path == "/e"
    assert endpoints.liveness_path == "/c"
    assert endpoints.drain_path == "/l/drain"
    assert endpoints.drain_token == TOKEN


@pytest.mark.parametrize("whole", ["policy", "drainer"])
def test_the_environment_wins_over_a_whole_policy_too(whole: str) -> None:
    own = DrainPolicy(grace_period=1, cancel_period=3)
    given = code(policy=own) if whole == "policy" else code(drainer=Drainer(own))
    settings = resolve(given, {"GRACEFUL_GRACE_PERIOD": "9"})
    assert settings.policy == DrainPolicy(grace_period=9, cancel_period=3)


def test_an_empty_path_takes_the_apps_own_away() -> None:
    settings = resolve(code(liveness_path="/livez"), {"GRACEFUL_LIVENESS_PATH": ""})
    assert settings.endpoints.liveness_path is None
    assert not settings.endpoints


def test_what_is_not_the_default_is_said_with_who_gave_it() -> None:
    given = code(grace_period=20, cancel_period=2, readiness_path="/readyz", drain_token=TOKEN)
    environ = {"GRACEFUL_LAME_DUCK_PERIOD": "1", "GRACEFUL_GRACE_PERIOD": "15"}
    settings = resolve(given, environ, {"websockets": "finish"})
    assert settings.origins == [
        "lame_duck_period=1.0 (GRACEFUL_LAME_DUCK_PERIOD)",
        "grace_period=15.0 (GRACEFUL_GRACE_PERIOD)",
        "websockets='finish' (--websockets)",
        "readiness_path='/readyz' (code)",
        "drain_token=... (code)",
    ]
    assert resolve(code(), {}).origins == []


# What is not allowed


def faults(settings: ServerSettings) -> list[str]:
    return [str(fault) for fault in settings.faults]


def test_a_bad_variable_is_named_and_left_out() -> None:
    environ = {"GRACEFUL_GRACE_PERIOD": "20s", "GRACEFUL_CANCEL_PERIOD": "1"}
    settings = resolve(code(grace_period=9), environ)
    assert faults(settings) == [
        "GRACEFUL_GRACE_PERIOD='20s' is not allowed; allowed: a finite number of seconds, 0 or more"
    ]
    assert settings.policy == DrainPolicy(grace_period=9, cancel_period=1)


def test_paths_that_do_not_go_together_are_left_out_as_a_whole() -> None:
    settings = resolve(code(), {"GRACEFUL_DRAIN_PATH": "/drain"})
    assert "without drain_token" in str(settings.fault)
    assert not settings.endpoints
    assert not resolve(code(drain_token=TOKEN), {"GRACEFUL_DRAIN_PATH": "/drain"}).faults


def test_a_token_that_is_missing_may_be_in_code_that_is_not_loaded_yet() -> None:
    line = {"drain_path": "/drain"}
    assert not resolve(code(), {}, line, before_code=True).faults
    assert resolve(code(), {}, line).faults
    together = {"readiness_path": "/drain", "drain_path": "/drain", "drain_token": TOKEN}
    assert resolve(code(), {}, together, before_code=True).faults


def test_all_faults_are_one_error() -> None:
    environ = {"GRACEFUL_GRACE_PERIOD": "x", "GRACEFUL_WEBSOCKETS": "y"}
    fault = resolve(code(), environ).fault
    assert isinstance(fault, PolicyError)
    assert "GRACEFUL_GRACE_PERIOD='x'" in str(fault)
    assert "GRACEFUL_WEBSOCKETS='y'" in str(fault)
    assert resolve(code(), {}).fault is None


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"grace_period": "20s"}, PolicyError, "^grace_period='20s' is not allowed; allowed: a f"),
        ({"grace_periood": 20}, PolicyError, "'grace_periood' .*20.* did you mean 'grace_period'?"),
        ({"redyness_path": "/r"}, PolicyError, "did you mean 'readiness_path'?"),
        ({"drain_tokn": TOKEN}, PolicyError, "did you mean 'drain_token'?"),
        ({"probes": 1}, PolicyError, "has no option 'probes'.*its options are: policy, drainer,"),
        ({"policy": {"grace_period": 1}}, PolicyError, "^policy=.* allowed: a DrainPolicy"),
        ({"drainer": DrainPolicy()}, PolicyError, "^drainer=.* allowed: a Drainer"),
        ({"policy": DrainPolicy(), "drainer": Drainer()}, MisuseError, "policy= and drainer="),
        ({"policy": DrainPolicy(), "grace_period": 1}, MisuseError, "policy= and grace_period="),
        ({"drainer": Drainer(), "websockets": "close"}, MisuseError, "drainer= and websockets="),
        ({"ready": "yes"}, PolicyError, "^ready='yes' is not allowed; allowed: a callable"),
    ],
)
def test_what_is_not_allowed_in_code_is_refused_where_it_is_written(
    given: dict[str, Any], kind: type[GracefulError], said: str
) -> None:
    with pytest.raises(kind, match=said) as raised:
        GracefulMiddleware(app, **given)
    assert isinstance(raised.value, ValueError if kind is PolicyError else RuntimeError)
    assert TOKEN not in str(raised.value)


def test_a_bad_variable_is_refused_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRACEFUL_GRACE_PERIOD", "abc")
    with pytest.raises(PolicyError, match="GRACEFUL_GRACE_PERIOD='abc'"):
        GracefulMiddleware(app)


def test_a_variable_that_is_nearly_one_of_ours_is_named() -> None:
    """Whoever set it believes that it counts. The prefix may be that of others as well."""
    environ = {
        "GRACEFUL_GRACE_PERIOOD": "20",
        "GRACEFUL_READYNESS_PATH": "/readyz",
        "GRACEFUL_GRACE_PERIOD": "20",
        "GRACEFUL_CONTROL_DIR": "/run/app",
        "GRACEFUL_SERVICE_HOST": "10.0.0.1",
        "GRACEFUL_SHUTDOWN": "yes",
        "GRACE_PERIOD": "1",
    }
    assert misspelt(environ) == [
        "GRACEFUL_GRACE_PERIOOD (did you mean GRACEFUL_GRACE_PERIOD?)",
        "GRACEFUL_READYNESS_PATH (did you mean GRACEFUL_READINESS_PATH?)",
    ]


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(code(drain_token=TOKEN))
    assert TOKEN not in repr(resolve(code(drain_token=TOKEN), {}))
