"""Servers on a UNIX socket: nothing is lost at the close, and the next one keeps its path."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
from support.client import Client, CutError, get
from support.polling import wait_until
from support.server import Server, uvicorn
from support.threads import repeated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = {
    "uvicorn": (("uvicorn",), "e2e.app:app"),
    "run": (("graceful_asgi", "run"), "e2e.app:bare"),
}


def served(directory: Path, path: Path, name: str, loop: str) -> Server:
    program, app = PROGRAMS[name]
    args = ("--uds", str(path), "--no-access-log")
    return uvicorn(directory, *args, app=app, program=program, loop=loop, lame_duck=0.3, grace=5.0)


def pid_at(path: Path) -> int:
    return int(get(str(path), "/pid").body)


@pytest.mark.parametrize(("name", "loop"), [("uvicorn", "asyncio"), ("run", "uvloop")])
def test_the_next_server_keeps_the_path_that_it_has_taken_over(
    tmp_path: Path, name: str, loop: str
) -> None:
    path = tmp_path / "socket"
    with served(tmp_path, path, name, loop) as old, served(tmp_path, path, name, loop) as new:
        wait_until(lambda: pid_at(path) == new.pid, "the new server")
        old.signal(signal.SIGTERM)
        assert old.wait() == 0
        assert pid_at(path) == new.pid
        new.signal(signal.SIGTERM)
        assert new.wait() == 0
        assert not path.exists()


@contextlib.contextmanager
def asking(path: Path) -> Iterator[Counter[str]]:
    """Ask without a pause, on a connection for each request; count what comes of it."""
    seen: Counter[str] = Counter()

    def ask(over: object) -> None:
        try:
            with Client(str(path)) as client:
                client.request("/")
                try:
                    seen[str(client.response().status)] += 1
                except CutError as error:
                    seen[f"lost: {error}"] += 1
        except BrokenPipeError:
            seen["lost: before it was written"] += 1
        except (ConnectionRefusedError, FileNotFoundError):
            seen["refused"] += 1

    with repeated(ask, threads=6):
        yield seen


def has_seen(seen: Counter[str], count: int) -> bool:
    return seen["200"] > count


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_connection_is_lost_at_the_close(tmp_path: Path, loop: str) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        with served(tmp_path, path, "uvicorn", loop) as server, asking(path) as seen:
            wait_until(partial(has_seen, seen, 50), "traffic")
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        assert set(seen) <= {"200", "refused"}, seen
