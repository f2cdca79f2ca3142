"""A service under systemd: what it says of itself, and a restart on a socket that systemd holds."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get
from support.docs import ROOT
from support.polling import wait_until
from support.server import MARGIN, Server, uvicorn
from support.systemd import NotifySocket, UnitFile

from graceful_asgi import DrainPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

IP_MINTTL = 21
"""Of Linux: what makes a listener deaf."""


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(str(tmp_path / "notify")) as listening:
        yield listening


def test_a_server_says_that_it_is_ready_that_it_stops_and_how_it_comes_on(
    tmp_path: Path, systemd: NotifySocket, beside: ThreadPoolExecutor
) -> None:
    env = {"NOTIFY_SOCKET": systemd.address}
    with uvicorn(tmp_path, env=env, ready=None, lame_duck=0.5, grace=10) as server:
        wait_until(lambda: systemd.told("READY"), "READY=1")
        slow = beside.submit(
            get, server.port, "/slow?until=go-on&name=old"
        )  # it listens: no second try
        server.wait_for("slow began old")
        assert systemd.told("STATUS") == ["serving"]
        server.terminate()
        wait_until(lambda: systemd.told("STOPPING"), "STOPPING=1")
        wait_until(
            lambda: re.search(
                r"^draining \(SIGTERM\): 1 in flight, \d+ s left$",
                "\n".join(systemd.told("STATUS")),
                re.M,
            ),
            "a status",
        )
        (tmp_path / "go-on").touch()
        assert slow.result().status == 200
        assert server.wait() == 0
    assert re.fullmatch(r"clean after [\d.]+ s \(SIGTERM\)", systemd.told("STATUS")[-1])
    assert (systemd.told("READY"), systemd.told("STOPPING")) == (["1"], ["1"])
    asked = [int(value) / 1e6 for value in systemd.told("EXTEND_TIMEOUT_USEC")]
    assert asked
    assert all(0 < seconds <= server.hard_deadline for seconds in asked)


def test_the_parent_of_workers_speaks_for_the_service(
    tmp_path: Path, systemd: NotifySocket, beside: ThreadPoolExecutor
) -> None:
    env = {"NOTIFY_SOCKET": systemd.address}
    run = ("graceful_asgi", "run")
    with uvicorn(
        tmp_path, "--workers", "2", program=run, env=env, ready=None, lame_duck=0.5, grace=10
    ) as server:
        wait_until(lambda: systemd.told("READY"), "READY=1")
        assert server.count("Application startup complete") == 2
        slow = beside.submit(get, server.port, "/slow?until=go-on&name=old")
        server.wait_for("slow began old")
        server.signal(signal.SIGTERM)
        wait_until(lambda: systemd.told("STOPPING"), "STOPPING=1")
        wait_until(
            lambda: "stopping: 1 of 1 workers, 1 in flight" in systemd.told("STATUS"), "a status"
        )
        (tmp_path / "go-on").touch()
        assert slow.result().status == 200
        assert server.wait() == 0
    assert (systemd.told("READY"), systemd.told("STOPPING")) == (["1"], ["1"])
    asked = [int(value) / 1e6 for value in systemd.told("EXTEND_TIMEOUT_USEC")]
    assert asked
    assert all(0 < seconds <= server.hard_deadline + 1 for seconds in asked)


def test_uvicorns_workers_do_not_speak_for_the_service(
    tmp_path: Path, systemd: NotifySocket
) -> None:
    env = {"NOTIFY_SOCKET": systemd.address}
    with uvicorn(tmp_path, "--workers", "2", env=env, ready=None, lame_duck=0.1) as server:
        server.wait_for_workers(2)
        assert get(server.port, "/").status == 200
        server.signal(signal.SIGTERM)
        server.wait(15)
    assert systemd.received() == []


# Socket activation


class Visitors:
    """Clients that each come on a connection of their own, again and again."""

    def __init__(self, port: int, pool: ThreadPoolExecutor, count: int) -> None:
        self._port = port
        self._gone = threading.Event()
        self.served = 0
        self._visits = [pool.submit(self._visit) for _ in range(count)]

    def _visit(self) -> None:
        while not self._gone.is_set():
            assert get(self._port, "/").body == b"hello"
            self.served += 1

    def leave(self) -> None:
        """Run them to their end. Raise what went wrong for any of them."""
        self._gone.set()
        for visit in self._visits:
            visit.result()


def activated(directory: Path, listener: socket.socket, loop: str) -> Server:
    fd = listener.fileno()
    command = [sys.executable, "-m", "uvicorn", "e2e.app:app", "--fd", str(fd), "--loop", loop]
    return Server(
        [*command, "--no-access-log"],
        directory,
        ready="Uvicorn running on socket",
        periods={"lame_duck": 0.3, "grace": 10},
        pass_fds=(fd,),
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_restart_on_the_same_socket_loses_nothing(
    tmp_path: Path, beside: ThreadPoolExecutor, loop: str
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=512)) as listener:
        port = listener.getsockname()[1]
        with activated(tmp_path, listener, loop) as old:
            visitors = Visitors(port, beside, 8)
            slow = beside.submit(get, port, "/slow?s=1&name=old")
            old.wait_for("slow began old")
            wait_until(lambda: visitors.served > 100, "visitors")
            old.terminate()
            old.wait_for("draining \\(")
            assert listener.getsockopt(socket.IPPROTO_IP, IP_MINTTL) == 0
            assert old.wait() == 0
            assert slow.result().body == b"slow, but complete"
        served = visitors.served
        with Client(port) as waiting:  # nobody serves: the kernel takes it all the same
            waiting.request("/")
            with activated(tmp_path, listener, loop) as new:
                assert waiting.response().body == b"hello"
                wait_until(lambda: visitors.served > served + 100, "visitors of the new server")
                visitors.leave()
                new.terminate()
                assert new.wait() == 0
        assert listener.getsockopt(socket.IPPROTO_IP, IP_MINTTL) == 0


# The units of the documentation


def units() -> list[str]:
    page = (ROOT / "docs" / "how-to" / "systemd.md").read_text(encoding="utf-8")
    return re.findall(r"^```ini\n(.*?)^```$", page, re.M | re.S)


def test_the_units_of_the_documentation_give_the_drain_its_time() -> None:
    services = [unit["Service"] for unit in map(UnitFile, units()) if "Service" in unit]
    assert len(services) == 2
    for service in services:
        assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
        assert float(service["TimeoutStopSec"]) > DrainPolicy().total_period + MARGIN


@pytest.mark.parametrize("number", [0, 1], ids=["alone", "with its socket"])
def test_the_units_of_the_documentation_are_what_systemd_takes(tmp_path: Path, number: int) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:  # not in every image that has Python
        pytest.skip("systemd-analyze is not installed")
    alone, listener, activated = units()
    name, text = (("shop", alone), ("shop-activated", activated))[number]
    service = re.sub(r"(?<=ExecStart=)\S+", sys.executable, text)
    files = {
        f"{name}.service": re.sub(r"/srv/shop(?=\n)", str(tmp_path), service),
        f"{name}.socket": listener,
    }
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    ended = subprocess.run(
        [program, "verify", *(str(tmp_path / file) for file in files)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    about = [line for line in ended.stderr.splitlines() if "shop" in line and "User" not in line]
    assert not about, "\n".join(about)
