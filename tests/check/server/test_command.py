"""The command that is started: an app under uvicorn, or any command, on a port of the check."""

from __future__ import annotations

import sys

import pytest

from graceful_asgi._check.errors import CommandError
from graceful_asgi._check.server.command import any_command, app_command, parse


def test_an_app_is_run_by_uvicorn_with_its_options_and_our_port() -> None:
    command = app_command(["pack.main:app", "--workers", "2"])
    assert command.at(8123) == [
        *(sys.executable, "-m", "uvicorn", "pack.main:app", "--workers", "2"),
        *("--host", "127.0.0.1", "--port", "8123"),
    ]
    assert command.name == "main:app --workers 2"


def test_the_port_is_put_into_a_command_wherever_it_says_so() -> None:
    command = any_command(["/usr/bin/serve", "--bind=:{port}", "{port}", "{other}"])
    assert command.at(8123) == ["/usr/bin/serve", "--bind=:8123", "8123", "{other}"]
    assert command.name.startswith("serve --bind=")


def test_a_string_is_taken_apart_as_a_shell_would() -> None:
    assert parse("serve 'two words' {port}").arguments == ("serve", "two words", "{port}")
    assert parse("main:app --http h11").arguments[:4] == (
        sys.executable,
        "-m",
        "uvicorn",
        "main:app",
    )


def test_a_long_name_is_cut() -> None:
    name = any_command(["serve", "x" * 100]).name
    assert len(name) == 30
    assert name.endswith("…")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty command"),
        ("'unbalanced", "no command"),
        ("main:app --port 8000", "--port is not for you to give"),
        ("main:app --host=0.0.0.0", "--host is not for you to give"),
        ("main:app --reload", "--reload"),
        ("main:app --uds x", "--uds"),
        ("main:app --fd 3", "--fd"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        parse(text)


def test_an_app_has_a_module_and_an_attribute() -> None:
    with pytest.raises(CommandError, match="give it as module:attribute"):
        app_command(["main.py"])
