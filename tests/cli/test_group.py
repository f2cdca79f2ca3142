"""The command line itself: what it lists, what it says when something is missing, how it ends."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support.command import run, run_python


def test_it_lists_its_commands_without_importing_them() -> None:
    ended = run_python(
        """
        import sys
        from graceful_asgi.__main__ import main
        code = main(["--help"])
        heavy = {"h11", "rich", "websockets", "matplotlib", "uvicorn", "graceful_asgi._cli.check"}
        print(code, sorted(heavy & set(sys.modules)))
        """
    )
    assert re.search(r"^  check +Stop a server under load", ended.stdout, re.M)
    assert ended.stdout.splitlines()[-1] == "0 []", ended.stderr


@pytest.mark.parametrize("missing", ["click", "h11", "rich", "websockets"])
def test_a_missing_extra_is_named_with_what_installs_it(missing: str) -> None:
    ended = run_python(
        f"""
        import sys
        sys.modules[{missing!r}] = None
        from graceful_asgi.__main__ import main
        print(main(["check", "main:app"]))
        """
    )
    assert ended.stdout.splitlines()[-1] == "2"
    assert f"{missing}, which is not installed" in ended.stderr
    assert "pip install 'graceful-asgi[check]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("run", "click", "run"),
        ("run", "uvicorn", "run"),
        ("status", "click", "control"),
        ("drain", "rich", "control"),
        ("--help", "click", "all"),
    ],
)
def test_each_command_names_its_own_extra(command: str, missing: str, extra: str) -> None:
    ended = run_python(
        f"""
        import sys
        sys.modules[{missing!r}] = None
        from graceful_asgi.__main__ import main
        print(main([{command!r}]))
        """
    )
    assert ended.stdout.splitlines()[-1] == "2"
    assert f"pip install 'graceful-asgi[{extra}]'" in ended.stderr


def test_a_missing_matplotlib_is_named_before_the_check_is_run() -> None:
    ended = run_python(
        """
        import sys
        sys.modules["matplotlib"] = None
        from graceful_asgi.__main__ import main
        print(main(["check", "--plot", "drain.svg", "--", "no-such-command"]))
        """
    )
    assert ended.stdout.splitlines()[-1] == "2"
    assert "--plot needs matplotlib, which is not installed" in ended.stderr
    assert "pip install 'graceful-asgi[plot]'" in ended.stderr


def test_an_error_of_ours_is_no_verdict() -> None:
    """A bug must not look like a loss: it ends with a traceback and 2."""
    ended = run_python(
        """
        import graceful_asgi._cli.check as check
        from graceful_asgi.__main__ import main

        def broken(*arguments):
            raise ZeroDivisionError

        check.run_rounds = check.allow_connections = broken
        print(main(["check", "main:app"]))
        """
    )
    assert ended.stdout.splitlines()[-1] == "2"
    assert "ZeroDivisionError" in ended.stderr


def test_the_version_is_that_of_the_package() -> None:
    ended = run("--version")
    assert ended.code == 0
    assert "graceful-asgi, version " in ended.out


def test_an_unknown_command_exits_with_2() -> None:
    ended = run("chekc")
    assert ended.code == 2
    assert "No such command 'chekc'" in ended.err


def test_the_script_is_installed() -> None:
    script = sys.executable.replace("python", "graceful-asgi")
    code = "from importlib.metadata import entry_points as e; print(*e(name='graceful-asgi'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "graceful_asgi.__main__:main" in found.stdout, script
