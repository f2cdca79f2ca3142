"""The configuration of the how-to page for supervisord, with this machine's paths in it."""

from __future__ import annotations

import signal
import sys
from configparser import RawConfigParser
from typing import TYPE_CHECKING

from support.client import get
from support.docs import ROOT
from support.need import need_program
from support.polling import wait_until
from support.ports import free_port
from support.server import Server

from graceful_asgi import DrainPolicy
from graceful_asgi._diagnostics.watchdog import MARGIN

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

CONFIGURATION = ROOT / "docs" / "how-to" / "manifests" / "supervisord.conf"
PROGRAM = "program:shop"


def configuration() -> RawConfigParser:
    parser = RawConfigParser()
    parser.read_string(CONFIGURATION.read_text(encoding="utf-8"))
    return parser


def supervisord(directory: Path) -> Server:
    """Return a supervisord that starts the program of the page with the tests' app."""
    port, given = free_port(), configuration()
    command = given[PROGRAM]["command"]
    command = command.replace(
        "/srv/shop/.venv/bin/uvicorn main:app", "{python} -m uvicorn e2e.app:app"
    )
    command = command.replace("8000", str(port)).format(python=sys.executable)
    del given[PROGRAM]["user"]
    given[PROGRAM].update(
        {
            "command": command,
            "directory": str(directory),
            "stdout_logfile": "/dev/fd/1",
            "stdout_logfile_maxbytes": "0",
            "redirect_stderr": "true",
        }
    )
    given["supervisord"] = {
        "logfile": "/dev/null",
        "logfile_maxbytes": "0",
        "pidfile": str(directory / "supervisord.pid"),
        "nodaemon": "true",
    }
    path = directory / "supervisord.conf"
    with path.open("w", encoding="utf-8") as file:
        given.write(file)
    return Server(
        [need_program("supervisord"), "-c", str(path)],
        directory,
        port=port,
        ready="Uvicorn running on",
        periods={"lame_duck": 0.5, "grace": 5, "cleanup": 10},
    )


def test_a_stop_by_supervisord_waits_for_what_is_in_flight(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with supervisord(tmp_path) as server:
        slow = beside.submit(get, server.port, "/slow?s=1.5")
        wait_until(lambda: server.count("slow began"), "the request is in flight")
        server.signal(signal.SIGTERM)
        assert slow.result().status == 200
        server.wait(60)
        assert server.count("clean after") == 1
        assert "stopped: shop (exit status 0)" in server.log


def test_supervisord_waits_for_longer_than_a_drain_may_take() -> None:
    program = configuration()[PROGRAM]
    assert float(program["stopwaitsecs"]) > DrainPolicy().total_period + MARGIN
    assert (
        f'GRACEFUL_TERMINATION_GRACE_PERIOD="{program["stopwaitsecs"]}"' in program["environment"]
    )
