"""`graceful-asgi run`: uvicorn's own options, and one for each field of the drain."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.command import run, run_python

from graceful_asgi._asgi.precedence import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import importlib, json, os, signal, sys
os.environ.update({environment!r})
from graceful_asgi.__main__ import main
from graceful_asgi._cli import run as cli

def figures(config):
    left_out = ("command_line", "policy", "log_config")
    kept = {{n: repr(v) for n, v in vars(config).items() if n not in left_out}}
    return kept | {{"log_config": repr(sorted(config.log_config or ()))}}

def ours(line):
    got = []
    cli.serve = lambda config: got.append(config) or 0
    assert main(["run", *line]) == 0
    return got[0]

def theirs(line):
    import uvicorn
    module, got = importlib.import_module("uvicorn.main"), []
    module.run = lambda app, app_dir=None, **given: got.append(uvicorn.Config(app, **given))
    module.main.main(list(line), auto_envvar_prefix="UVICORN", standalone_mode=False)
    return got[0]
"""


def python(code: str, environment: dict[str, str] | None = None) -> Any:
    """Run *code* after `PROGRAM`; return the JSON that it prints."""
    ended = run_python(PROGRAM.format(environment=environment or {}) + code)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


LINES = [
    ["main:app"],
    ["main:app", "--port", "8001", "--host", "::1", "--workers", "3", "--backlog", "7"],
    ["main:app", "--uds", "/tmp/socket", "--no-access-log", "--log-level", "debug"],
    ["main:app", "--header", "a:b", "--header", "c:d:e", "--root-path", "/api", "--factory"],
    ["main:app", "--limit-max-requests", "9", "--timeout-graceful-shutdown", "4", "--fd", "3"],
    ["main:app", "--reload", "--reload-delay", "2", "--ws", "none", "--loop", "asyncio"],
]


def test_uvicorns_options_mean_what_they_mean_to_uvicorn() -> None:
    environment = {"UVICORN_TIMEOUT_KEEP_ALIVE": "11", "UVICORN_SERVER_HEADER": "0"}
    found = python(
        f"""
pairs = [(figures(ours(line)), figures(theirs(line))) for line in {LINES!r}]
print(json.dumps(pairs))
""",
        environment,
    )
    assert len(found) == len(LINES)
    for ours, theirs in found:
        assert ours == theirs
        assert ours["timeout_keep_alive"] == "11"


def test_every_option_of_uvicorn_and_every_field_is_listed() -> None:
    listed = run("run", "--help").out
    theirs = python(
        """
import uvicorn.main
main = importlib.import_module("uvicorn.main").main
print(json.dumps([param.opts[0] for param in main.params if param.opts[0].startswith("--")]))
"""
    )
    ours = [option.flag for option in OPTIONS.values()]
    for flag in [*theirs, *ours, "--control-dir"]:
        assert flag in listed
    words = " ".join(listed.split())
    for option in OPTIONS.values():
        (shown,) = re.findall(rf"\[{option.variable}; default: (\S+)\]", words)
        assert option.parse(shown, called="the default") == option.default
        assert option.summary.replace(" ", "") in listed.replace("\n", "").replace(" ", "")


def settings(line: list[str], environment: dict[str, str]) -> Any:
    """Return what counts for a server whose app says nothing itself."""
    return python(
        f"""
from graceful_asgi._asgi.precedence import CodeOptions, resolve
given = ours({["main:app", *line]!r})
found = resolve(CodeOptions(), os.environ, given.command_line)
assert found.policy == given.policy
print(json.dumps(found.origins))
""",
        environment,
    )


def test_an_option_wins_over_the_environment_and_none_is_a_value() -> None:
    environment = {
        "GRACEFUL_GRACE_PERIOD": "3",
        "GRACEFUL_QUIET_PERIOD": "4",
        "GRACEFUL_LAME_DUCK_PERIOD": "5.5",
        "GRACEFUL_READINESS_PATH": "/ready",
        "UVICORN_CANCEL_PERIOD": "6",  # no option of uvicorn's
    }
    line = ["--grace-period", "7", "--quiet-period", "none", "--websockets", "finish"]
    line += ["--no-drain-on-unhandled-exception", "--readiness-path", "/readyz"]
    line += ["--liveness-path", "/livez"]
    assert settings(line, environment) == [
        "lame_duck_period=5.5 (GRACEFUL_LAME_DUCK_PERIOD)",
        "quiet_period=None (--quiet-period)",
        "grace_period=7.0 (--grace-period)",
        "websockets='finish' (--websockets)",
        "drain_on_unhandled_exception=False (--drain-on-unhandled-exception)",
        "readiness_path='/readyz' (--readiness-path)",
        "liveness_path='/livez' (--liveness-path)",
    ]


def test_an_env_file_is_part_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("GRACEFUL_GRACE_PERIOD=3\n")
    assert settings(["--env-file", str(tmp_path / "settings")], {}) == [
        "grace_period=3.0 (GRACEFUL_GRACE_PERIOD)"
    ]


@pytest.mark.parametrize(
    ("line", "environment", "said"),
    [
        (
            ["--grace-period", "soon"],
            {},
            "--grace-period='soon' is not allowed; allowed: a finite number of seconds, 0 or more",
        ),
        (["--websockets", "drop"], {}, "allowed: 'close' or 'finish'"),
        ([], {"GRACEFUL_CANCEL_PERIOD": "-1"}, "GRACEFUL_CANCEL_PERIOD=-1.0 is not allowed"),
        (["--readiness-path", "readyz"], {}, "--readiness-path='readyz' is not allowed"),
        (["--drain-path", "/d", "--drain-token", "short"], {}, "16 characters or more"),
        (["--no-such-option"], {}, "No such option"),
    ],
)
def test_what_is_not_allowed_is_named_before_anything_runs(
    line: list[str], environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = run("run", "no_such_module:app", *line)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_an_app_that_is_not_there_ends_as_uvicorn_ends() -> None:
    ended = run("run", "no_such_module:app", "--port", "0")
    assert ended.code == 3
    assert 'Could not import module "no_such_module"' in ended.err


def test_the_control_directory_is_in_the_environment_of_the_workers() -> None:
    found = python(
        """
ours(["main:app", "--control-dir", "/run/app"])
print(json.dumps(os.environ["GRACEFUL_CONTROL_DIR"]))
"""
    )
    assert found == "/run/app"
    assert "GRACEFUL_CONTROL_DIR" not in os.environ
