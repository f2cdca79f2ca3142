"""`make demo` as a newcomer runs it: the middleware loses nothing, and the exit code says so."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from support.command import run

ROOT = Path(__file__).parents[2]


def demo() -> list[str]:
    """The arguments that the Makefile gives to ``graceful-asgi``."""
    dry = ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/demo", "demo"]
    said = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = said[said.index("graceful-asgi check") :].replace("\\\n", " ")
    return shlex.split(command.splitlines()[0])[1:]


def test_the_demo_counts_no_loss_with_the_middleware() -> None:
    arguments = demo()
    assert "--compare" in arguments
    ended = run(*arguments, "--json", "--signal-after", "1.5", "--skip", "repeated signal")
    assert ended.code == 0, ended.out + ended.err
    graceful, plain = ended.report["servers"]
    assert graceful["passed"]
    assert graceful["requests"]["total"]["lost"] == 0
    assert graceful["exits"][0]["code"] == 0
    assert plain["exits"][0]["code"] == -9, "an endless stream keeps it until it is killed"
    for server in (graceful, plain):
        assert server["requests"]["before"]["served"] > 50  # there was load
        scenarios = {each["name"]: each for each in server["scenarios"]}
        assert scenarios["WebSocket"]["result"] == "passed"
        slow, download = scenarios["slow request"], scenarios["streaming download"]
        assert slow["requests"]["during"]["sent"] == 1
        assert download["requests"]["during"]["served"] == 1  # its body had begun
        if server is graceful:
            # The plain one may lose what is in its queue when it closes its listener: a request
            # that comes after the signal, or on a busy machine the slow one itself.
            assert slow["result"] == download["result"] == "passed"
        result = scenarios["event stream"]["result"]
        assert result == ("passed" if server is graceful else "failed")
