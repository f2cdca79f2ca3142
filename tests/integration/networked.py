"""Servers behind a network with a delay, stopped under traffic. For tests and bench."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
from support.network import SERVER, SERVER_IPV6, UNPRIVILEGED, USER, need_unprivileged
from support.polling import PATIENCE
from support.server import STARTS, Server
from support.traffic import Counted, Traffic, TrafficPlan

if TYPE_CHECKING:
    from support.network import Network

PORT = 8000
"""Each network is its own: nobody else has this port there."""

Program = Literal["uvicorn", "run", "plain uvicorn"]
Stop = Literal["SIGTERM", "SIGINT", "drain, SIGTERM"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One server, and how it is stopped."""

    program: Program = "uvicorn"
    workers: int = 1
    lame_duck: float = 0.0
    stop: Stop = "SIGTERM"
    loop: str = "asyncio"
    privileged: bool = True
    ipv6: bool = False
    before: float = 0.6
    """Seconds of traffic before the stop."""
    plan: TrafficPlan = field(default_factory=lambda: TrafficPlan(keep_alive=20, fresh=150))

    def __str__(self) -> str:
        workers = f" --workers {self.workers}" if self.workers > 1 else ""
        named = {"run": "graceful-asgi run"}.get(self.program, self.program)
        rest = [f"lame duck {self.lame_duck:g}", self.stop, self.loop]
        rest += ["IPv6"] if self.ipv6 else []
        rest += [] if self.privileged else ["unprivileged"]
        return f"{named}{workers}, {', '.join(rest)}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words that run a command as the user of the server."""
        return () if self.privileged else UNPRIVILEGED

    def server(self, directory: Path) -> Server:
        """Return the server, not started."""
        program = ["graceful_asgi", "run"] if self.program == "run" else ["uvicorn"]
        app = "e2e.app:app" if self.program == "uvicorn" else "e2e.app:bare"
        workers = ["--workers", str(self.workers)] if self.workers > 1 else []
        return Server(
            [
                *self.prefix,
                *(sys.executable, "-m", *program, app, *workers, "--no-access-log"),
                *("--host", self.host, "--port", str(PORT), "--loop", self.loop),
            ],
            directory,
            port=PORT,
            ready="Application startup complete",
            periods={"lame_duck": self.lame_duck, "grace": 10, "cancel": 1, "cleanup": 10},
            env={"GRACEFUL_CONTROL_DIR": str(directory / "control")},
            measured=False,
        )

    @property
    def host(self) -> str:
        return SERVER_IPV6 if self.ipv6 else SERVER


@dataclass(frozen=True, slots=True)
class Stopped:
    """The course of one stop."""

    counted: Counted
    exit_code: int
    seconds: float
    tried_again: int
    """Connects whose first packet got no answer: the client sent it again, a second later."""


def stop_under_traffic(case: Case, network: Network) -> Stopped:
    """Start the server, stop it under traffic, and count."""
    # Not a directory of pytest, which is open to its owner alone.
    with tempfile.TemporaryDirectory() as directory:
        if not case.privileged:
            need_unprivileged()
            os.chown(directory, USER, USER)
        return _stop_one(case, network, case.server(Path(directory)))


def _stop_one(case: Case, network: Network, server: Server) -> Stopped:
    with network.on_server(), server:
        server.wait_for("Application startup complete", count=case.workers, within=STARTS)
        with network.on_client():
            before = _syns_sent_again()
            counted = anyio.run(_stop, case, server, network.delay)
            tried_again = _syns_sent_again() - before
        assert server.exit_code is not None
        return Stopped(counted, server.exit_code, server.seconds_since_signal(), tried_again)


def _syns_sent_again() -> int:
    """Return the kernel's count for the network of this thread."""
    text = Path("/proc/thread-self/net/netstat").read_text(encoding="ascii")
    names, figures = (line.split() for line in text.splitlines() if line.startswith("TcpExt:"))
    return int(figures[names.index("TCPSynRetrans")])


async def _stop(case: Case, server: Server, delay: float) -> Counted:
    # Two round trips more, as the server gives them to an idle connection.
    reuse_within = case.plan.reuse_within + 4 * delay
    plan = replace(case.plan, hosts=(case.host,), reuse_within=reuse_within)
    async with Traffic(plan, PORT).flowing() as traffic:
        await anyio.sleep(case.before + random.random() * 0.1)  # at any moment of uvicorn's tick
        traffic.mark()
        if case.stop == "drain, SIGTERM":
            await anyio.run_process(
                [
                    *case.prefix,
                    sys.executable,
                    "-m",
                    "graceful_asgi",
                    "drain",
                    "--resume-after",
                    "30",
                ],
                env=server.env,
            )
        server.signal(signal.SIGINT if case.stop == "SIGINT" else signal.SIGTERM)
        with anyio.move_on_after(PATIENCE + case.lame_duck):
            await server.wait_exit()
        # Plain uvicorn waits for ever for connections that it should have closed (seen 1 of 4).
        assert case.program == "plain uvicorn" or not server.running
        server.kill()
    return traffic.counted
