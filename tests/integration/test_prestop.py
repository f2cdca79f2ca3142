"""The steps of kubelet: preStop, then SIGTERM, SIGKILL at the end of the grace period."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread
import pytest
from e2e.endpoint import TOKEN
from support.client import Client
from support.load import EndpointLoad
from support.polling import eventually
from support.ports import free_port
from support.server import STARTS, Server

from graceful_asgi._check.client.plan import LoadPlan

if TYPE_CHECKING:
    from pathlib import Path

    from graceful_asgi._check.result.counts import LoadResult

Hook = Literal["exec", "httpGet"]

GRACE = 30.0
"""Seconds: `terminationGracePeriodSeconds`, by default as long."""
LAME_DUCK = 0.5
PLAN = LoadPlan(
    keep_alive_clients=5,
    fresh_clients=5,
    think_period=0.05,
    slow_path="/slow?s=1.2",
    stream_path="/stream?n=12",
    single_after=0.3,
)


def run_workers(directory: Path, sockets: Path, *, workers: int) -> Server:
    """`graceful-asgi run`, which keeps its promise with workers as well."""
    port = free_port()
    command = [sys.executable, "-m", "graceful_asgi", "run", "e2e.endpoint:app"]
    return Server(
        [
            *command,
            *("--port", str(port), "--workers", str(workers), "--no-access-log"),
            *("--control-dir", str(sockets)),
        ],
        directory,
        port=port,
        periods={"lame_duck": LAME_DUCK, "grace": 5.0, "cleanup": 3.0},
    )


async def pre_stop(hook: Hook, server: Server, sockets: Path) -> str:
    """Run the hook; return what it had to say. Both kinds as kubelet runs them: to their end."""
    if hook == "exec":
        command = [sys.executable, "-m", "graceful_asgi", "drain"]
        done = await anyio.run_process(
            command, env={**os.environ, "GRACEFUL_CONTROL_DIR": str(sockets)}
        )
        return done.stdout.decode()

    def get() -> str:
        with Client(server.port) as client:
            head = f"GET /drain HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {TOKEN}\r\n"
            client.send(f"{head}Connection: close\r\n\r\n".encode())
            response = client.response()
        return f"{response.status} {response.body.decode()}"

    return await anyio.to_thread.run_sync(get)


async def terminate_pod(
    hook: Hook, server: Server, sockets: Path, workers: int
) -> tuple[LoadResult, str, int | None]:
    """Put load on the server and take it through a pod's end, within the one grace period.

    The pod leaves the endpoints during the hook. Without that a server may never have an instant at
    which nothing is in flight, and then the hook waits for the end of the server's grace period.
    SIGTERM finds clients at the server all the same: some learn late of the endpoints.
    """
    load = EndpointLoad(PLAN, port=server.port)
    said = ""

    async def leave_endpoints() -> None:
        reason = "graceful-asgi drain" if hook == "exec" else "drain endpoint"
        await eventually(
            lambda: server.count(f": lame duck ({reason})") >= workers, "the drain has begun"
        )
        await anyio.sleep(LAME_DUCK)
        load.endpoint.remove()

    async def kubelet() -> None:
        nonlocal said
        await load.in_position()
        ends_at = time.monotonic() + GRACE
        load.mark_signalled()  # for the load the end of the pod begins here
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_endpoints)
            said = await pre_stop(hook, server, sockets)
        load.endpoint.add()
        os.kill(server.pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            await anyio.to_thread.run_sync(server.wait, max(0.0, ends_at - time.monotonic()))
        server.kill()

    result = await load.run(until=kubelet, within=2 * GRACE)
    return result, said, server.exit_code


@pytest.mark.parametrize(("hook", "workers"), [("exec", 1), ("exec", 2), ("httpGet", 2)])
def test_a_pods_end_loses_nothing(tmp_path: Path, hook: Hook, workers: int) -> None:
    sockets = tmp_path / "sockets"
    with run_workers(tmp_path, sockets, workers=workers) as server:
        server.wait_for("Application startup complete", count=workers, within=STARTS)
        server.wait_for(
            "Uvicorn running on", within=STARTS
        )  # of one process that is the last to come
        result, said, code = anyio.run(terminate_pod, hook, server, sockets, workers)
    assert code == 0, server.log
    assert said.count(": drained\n") == workers if hook == "exec" else said == "200 clean"
    total = result.total
    assert total.lost_total == 0, total
    assert total.wrong == {}
    assert total.served > 20
    reason = "graceful-asgi drain" if hook == "exec" else "drain endpoint"
    assert server.count(f"SIGTERM ends the process after the drain begun by {reason}") == workers
    assert os.listdir(sockets) == []
