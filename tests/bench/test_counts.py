"""The cost of the middleware while serving, held by counts: they are the same on any machine.

A change that makes the path dearer fails here. Lower a number where a change makes it cheaper.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from support.server import PACKAGE_ROOT, TESTS

OLD = sys.version_info < (3, 12)
"""These versions find the current task in Python: one function more."""

MOST = {
    # The app's two calls of `send`; a C function each for the task and for both ends of the entry
    # in the registry. The clock is not asked: the time is that of the server's last tick.
    "request": {"functions": 3 if OLD else 2, "builtins": 3, "codes": 180},
    "request with a body": {"functions": 4 if OLD else 3, "builtins": 4, "codes": 205},
    # Two functions more find out which server it is of. No coroutine.
    "request without a lifespan": {"functions": 5 if OLD else 4, "builtins": 7, "codes": 225},
    # One call of `send`, and not one more.
    "streamed piece": {"functions": 1, "builtins": 2, "codes": 65},
    "WebSocket message and answer": {"functions": 3, "builtins": 0, "codes": 160},
}


@pytest.fixture(scope="module")
def counted() -> Any:
    # In a process of its own: here a coverage tool or a debugger may trace.
    path = os.pathsep.join((str(PACKAGE_ROOT), str(TESTS)))
    command = [sys.executable, "-m", "bench.counts"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", MOST)
def test_no_more_runs_than_is_allowed(what: str, counted: Any) -> None:
    over = {
        name: f"{counted[what][name]}, allowed are {most}"
        for name, most in MOST[what].items()
        if counted[what][name] > most
    }
    assert not over
