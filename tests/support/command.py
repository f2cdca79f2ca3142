"""Programs that run to their end: `python -c ...`, and the command line as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.polling import PATIENCE
from support.server import PACKAGE_ROOT, TESTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAMS = TESTS / "check" / "server" / "programs"
PLAIN_PYTHON = [sys.executable, "-S"]
"""For programs that need nothing but the standard library. They start in half the time."""
SERVER = [*PLAIN_PYTHON, str(PROGRAMS / "server.py")]

QUICK = ["--signal-after", "0.6", "--skip", "repeated signal"]
"""As short as a check can be."""
NO_LOAD = ["--keep-alive", "0", "--fresh", "0", "--skip", "pipelining"]
"""Only the single requests, whose fate is certain."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a command."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Its standard output, which has to be JSON and nothing else."""
        report: dict[str, Any] = json.loads(self.out)
        return report

    @property
    def server(self) -> dict[str, Any]:
        """The verdict on the first server."""
        server: dict[str, Any] = self.report["servers"][0]
        return server

    def scenario(self, name: str) -> dict[str, Any]:
        """Return one of its scenarios."""
        [found] = [each for each in self.server["scenarios"] if each["name"] == name]
        return dict(found)


def environment(**more: str) -> dict[str, str]:
    """Return this environment, with the test apps importable, in a terminal of 80 columns."""
    paths = [str(TESTS), str(PACKAGE_ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "80", **more}


@contextmanager
def started(*arguments: str, through: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m graceful_asgi`` during the block, by the command `through` if given."""
    with subprocess.Popen(
        [*through, sys.executable, "-m", "graceful_asgi", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run ``python -m graceful_asgi`` to its end."""
    ended = subprocess.run(
        [sys.executable, "-m", "graceful_asgi", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=environment(**(env or {})),
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def run_python(source: str, *, within: float = 3 * PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run *source* as a program of its own, with this package; return how it ended.

    Some import half of the environment, under coverage: a slow machine takes many seconds for that.
    """
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(PACKAGE_ROOT)])
    try:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(source)],
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
            env={**os.environ, "PYTHONPATH": path.lstrip(os.pathsep)},
        )
    except subprocess.TimeoutExpired as exc:
        raise AssertionError(f"not over within {within} s: {exc.stdout!r} {exc.stderr!r}") from None
