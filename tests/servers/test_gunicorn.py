"""The parts of gunicorn and uvicorn-worker that the package touches, in the installed releases."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from support.need import need
from support.server import uvicorn_config

from graceful_asgi._servers.gunicorn import worker_of
from graceful_asgi._servers.server_id import server_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _is_no_gunicorn() -> Iterator[None]:
    """Undo an import of the test, by which a process is taken for one of gunicorn's."""
    yield
    sys.modules.pop("gunicorn.arbiter", None)


def load(module: str) -> Any:
    """Import what has no type hints."""
    need(module.partition(".")[0])
    return importlib.import_module(module)


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    settings = load("gunicorn.config").Config()
    settings.set("graceful_timeout", 7)
    settings.set("worker_tmp_dir", str(tmp_path))
    log = load("gunicorn.glogging").Logger(settings)
    made = load("uvicorn_worker").UvicornWorker(1, 1, [], None, 1, settings, log)
    yield made
    made.tmp.close()


def test_the_worker_is_found_behind_the_heartbeat(worker: Any) -> None:
    server: Any = uvicorn.Server(worker.config)
    assert worker_of(server) is worker


def test_a_server_with_another_callback_is_in_no_worker() -> None:
    async def notify() -> None:
        """Somebody else's."""

    for callback in (None, notify):
        server: Any = uvicorn.Server(uvicorn_config("app:app", callback_notify=callback))
        assert worker_of(server) is None


def test_its_process_belongs_to_the_server_of_its_parent(worker: Any) -> None:
    worker.ppid = 4711
    server: Any = uvicorn.Server(worker.config)
    assert server_id(server).pid == 4711


def test_the_worker_says_what_its_parent_gives(worker: Any) -> None:
    assert worker.cfg.graceful_timeout == 7


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
@pytest.mark.parametrize(
    ("environ", "settings", "alone"),
    [
        ({}, {}, True),
        ({"LISTEN_FDS": "1"}, {}, False),
        ({"GUNICORN_FD": "5"}, {}, False),
        ({}, {"bind": ["fd://3"]}, False),
        ({}, {"reuse_port": True}, False),
    ],
)
def test_sockets_that_came_from_outside_are_known(
    environ: dict[str, str], settings: dict[str, object], alone: bool
) -> None:
    """By what the process was started with; gunicorn takes that out of `os.environ`."""
    code = (
        "from types import SimpleNamespace\n"
        "from gunicorn.config import Config\n"
        "from graceful_asgi._servers.gunicorn import shares_sockets_with_siblings_only\n"
        "cfg = Config()\n"
        f"for name, value in {settings!r}.items():\n"
        "    cfg.set(name, value)\n"
        "print(shares_sockets_with_siblings_only(SimpleNamespace(cfg=cfg)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == str(alone)


def test_the_parent_sends_sigquit_when_it_is_to_hurry() -> None:
    source = inspect.getsource(load("gunicorn.arbiter").Arbiter.stop)
    assert "sig = signal.SIGQUIT" in source
    assert "kill_workers(signal.SIGQUIT)" in source
