"""A service of pods behind a network: each pod is replaced by a new one, as Kubernetes does it.

The new pod is ready before the old one is deleted. At the deletion two things begin at once. The
endpoint is removed, which reaches the clients some time later. And kubelet runs the preStop hook,
sends SIGTERM when that is over, and SIGKILL at the end of the grace period.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import anyio
import anyio.to_thread
from e2e.endpoint import TOKEN
from support.network import SERVER
from support.server import STARTS, Server
from support.traffic import Counted, Traffic, TrafficPlan

from graceful_asgi._check.client.http1 import Request, connect

if TYPE_CHECKING:
    from pathlib import Path

    from support.network import Network

Hook = Literal["exec", "httpGet", "none"]

TERMINATION_GRACE_PERIOD: Final = 30.0
PLAN: Final = TrafficPlan(keep_alive=20, fresh=60, think=0.1, hosts=(SERVER,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Common to all pods of a service."""

    hook: Hook
    workers: int = 1
    lame_duck: float = 4.0
    shortest_lag: float = 0.0
    longest_lag: float = 3.0
    """Seconds from a deletion to the last connect to the old pod: a random time between the two."""

    def pod(self, number: int, directory: Path) -> Server:
        """Return a pod, not started. Each has a port of its own, in the place of an address."""
        port = 8000 + number
        return Server(
            [
                *(sys.executable, "-m", "graceful_asgi", "run", "e2e.endpoint:app"),
                *("--workers", str(self.workers), "--no-access-log"),
                *("--host", SERVER, "--port", str(port)),
                *("--control-dir", str(directory / str(number))),
            ],
            directory,
            port=port,
            periods={"lame_duck": self.lame_duck, "grace": 8.0, "cancel": 1.0, "cleanup": 10.0},
            env={"GRACEFUL_CONTROL_DIR": str(directory / str(number))},
            measured=False,
        )


@dataclass(slots=True)
class Replaced:
    """The course of the replacements."""

    counted: Counted = field(default_factory=Counted)
    exit_codes: list[int | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """From each deletion to the pod's end."""
    logs: list[str] = field(default_factory=list)


class Service:
    """The clients' view of the pods: a connect goes to one of the endpoints, at random."""

    def __init__(self, deployment: Deployment, network: Network, directory: Path) -> None:
        self._deployment = deployment
        self._network = network
        self._directory = directory
        self._endpoints: list[int] = []
        self._started = 0
        self.replaced = Replaced()

    def endpoint(self) -> int:
        return random.choice(self._endpoints)

    async def start_pod(self) -> Server:
        pod = self._deployment.pod(self._started, self._directory)
        self._started += 1
        await anyio.to_thread.run_sync(self._start, pod)
        self._endpoints.append(pod.port)
        return pod

    def _start(self, pod: Server) -> None:
        with self._network.on_server():
            pod.start()
            try:
                workers = self._deployment.workers
                pod.wait_for("Application startup complete", count=workers, within=STARTS)
                pod.wait_for("Uvicorn running on", within=STARTS)
            except BaseException:
                pod.kill()  # else it would have the port in the next test
                raise

    async def delete(self, pod: Server) -> None:
        """Take a pod through its end."""
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._remove_endpoint, pod)
            with anyio.move_on_after(TERMINATION_GRACE_PERIOD):
                await self._run_hook(pod)
                pod.signal(signal.SIGTERM)
                await pod.wait_exit()
            pod.kill()
        self.replaced.seconds.append(time.monotonic() - began)
        self.replaced.exit_codes.append(pod.exit_code)
        self.replaced.logs.append(pod.log)

    async def _remove_endpoint(self, pod: Server) -> None:
        await anyio.sleep(
            random.uniform(self._deployment.shortest_lag, self._deployment.longest_lag)
        )
        self._endpoints.remove(pod.port)

    async def _run_hook(self, pod: Server) -> None:
        if self._deployment.hook == "exec":
            command = [sys.executable, "-m", "graceful_asgi", "drain"]
            await anyio.run_process(command, env=pod.env)
        elif self._deployment.hook == "httpGet":
            token = ("Authorization", f"Bearer {TOKEN}")
            close = ("Connection", "close")
            connection = await connect(SERVER, pod.port, within=5)
            connection.send(Request.make("GET", "/drain", authority="pod", headers=[token, close]))
            await connection.receive()
            connection.close()


def replace_pods(
    deployment: Deployment,
    network: Network,
    directory: Path,
    *,
    times: int,
    plan: TrafficPlan = PLAN,
) -> Replaced:
    """Replace a pod by the next one, under load, so many times; return what was seen."""
    service = Service(deployment, network, directory)
    # Two round trips more, as a server gives them to an idle connection.
    plan = replace(plan, reuse_within=plan.reuse_within + 4 * network.delay)

    async def run() -> None:
        pods = [await service.start_pod()]
        try:
            async with Traffic(plan, service.endpoint, service.replaced.counted).flowing():
                for _ in range(times):
                    await anyio.sleep(0.3)
                    pods.append(await service.start_pod())
                    await service.delete(pods[-2])
                await anyio.sleep(0.3)
        finally:
            for pod in pods:
                pod.kill()

    with network.on_client():
        anyio.run(run)
    return service.replaced
