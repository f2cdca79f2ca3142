"""A signal handler in the place of uvicorn's: warned about where a stop is missed, only there."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support.client import get
from support.ports import free_port
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from pathlib import Path

# Each pair of a moment, a way and a loop once.
WAYS = [
    ("startup", "signal", "asyncio", "SIGINT"),
    ("startup", "loop", "uvloop", "SIGTERM"),
    ("request", "signal", "uvloop", "SIGTERM"),
    ("request", "loop", "asyncio", "SIGTERM"),
]
each_way = pytest.mark.parametrize(("when", "how", "loop", "name"), WAYS)


def stolen(directory: Path, when: str, how: str, what: str, loop: str, name: str) -> Server:
    env = {"APP_STEALS": f"{when} {how} {what}", "APP_SIGNAL": name}
    return uvicorn(
        directory, app="e2e.stealing_app:app", loop=loop, env=env, lame_duck=0.1, grace=1
    )


@each_way
def test_a_handler_that_cannot_tell_the_server_is_warned_about_at_once(
    tmp_path: Path, when: str, how: str, loop: str, name: str
) -> None:
    with stolen(tmp_path, when, how, "unrelated", loop, name) as server:
        assert get(server.port, "/").status == 200
        server.wait_for(
            rf"WARNING.*handler of {name} has been replaced by e2e\.stealing_app\.unrelated "
            r"\(.*stealing_app\.py:.*server\.should_exit = True"
        )
        assert server.count("has been replaced by") == 1


@each_way
def test_a_handler_that_does_not_tell_the_server_is_warned_about_when_it_should_have(
    tmp_path: Path, when: str, how: str, loop: str, name: str
) -> None:
    """It holds the handler before it, so it might. That shows only when the signal comes."""
    with stolen(tmp_path, when, how, "holds", loop, name) as server:
        assert get(server.port, "/").status == 200
        assert "goes to" not in server.log
        assert "has been replaced" not in server.log
        server.signal(signal.Signals[name])
        server.wait_for(rf"WARNING.*{name} goes to .*holding \(.*stealing_app\.py:")
        assert server.count("the app's handler") == 1
        assert server.running


@each_way
def test_a_handler_that_chains_is_not_warned_about(
    tmp_path: Path, when: str, how: str, loop: str, name: str
) -> None:
    """Sentry's and many others do."""
    with stolen(tmp_path, when, how, "chains", loop, name) as server:
        assert get(server.port, "/").status == 200
        server.signal(signal.Signals[name])
        assert server.wait() == 0
        assert server.count("the app's handler") == 1
        assert server.count("lifespan shutdown") == 1
        assert "WARNING" not in server.log


@pytest.mark.parametrize("name", ["cancels_serve", "sets_an_event"])
def test_a_program_that_handles_signals_in_its_own_way_is_not_warned_about(
    tmp_path: Path, name: str
) -> None:
    """vLLM cancels the task of `serve()`; others wake a task that sets `should_exit`."""
    port = free_port()
    command = [sys.executable, "-m", "e2e.programs", name, str(port)]
    ready = "(?s)handler installed.*Uvicorn running"
    with Server(command, tmp_path, port=port, ready=ready, periods={"lame_duck": 0.1}) as server:
        assert get(port, "/slow?s=0.3").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.count("lifespan shutdown") == 1
        assert "program goes on" in server.log
        assert "WARNING" not in server.log
