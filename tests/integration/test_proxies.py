"""Two servers behind a proxy, restarted in turn: the client sees none of it.

The proxies' configurations are those of the how-to pages, with other ports.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest
from support.client import Client, CutError, Response, get
from support.load import EndpointLoad
from support.polling import wait_until
from support.ports import free_port
from support.server import uvicorn
from support.threads import repeated

from graceful_asgi._check.client.plan import LoadPlan

from .proxies import PROXIES

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from concurrent.futures import Future, ThreadPoolExecutor
    from pathlib import Path

    from support.server import Server

    from graceful_asgi._check.result.counts import LoadResult

PLAN = LoadPlan(keep_alive_clients=10, fresh_clients=5, think_period=0.02)


def served_by(directory: Path, port: int) -> Server:
    return uvicorn(
        directory,
        "--port",
        str(port),
        lame_duck=0.8,
        grace=10,
        cleanup=10,
    )


@contextlib.contextmanager
def posting(port: int) -> Iterator[Counter[object]]:
    """Post without a pause, on kept-alive connections; count what comes of it."""
    seen: Counter[object] = Counter()

    def post(over: threading.Event) -> None:
        with Client(port) as client, contextlib.suppress(StopIteration):
            while not over.is_set():
                client.request("/echo", method="POST", body=b"four")
                try:
                    answer = client.response()
                except CutError as error:
                    seen[repr(error)] += 1
                    break
                seen[answer.status, answer.body] += 1
                if answer.closes:
                    break

    with repeated(post, threads=4):
        yield seen


@pytest.mark.parametrize("proxied_by", PROXIES)
def test_both_servers_restart_in_turn_and_nobody_notices(
    tmp_path: Path, proxied_by: str, beside: ThreadPoolExecutor
) -> None:
    ports = {"8001": free_port(), "8002": free_port(), "8080": free_port()}
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(served_by(tmp_path, ports[name])) for name in ("8001", "8002")
        }
        proxy = stack.enter_context(PROXIES[proxied_by](tmp_path, ports))

        def proxied() -> bool:
            assert proxy.running
            with contextlib.suppress(OSError, CutError):
                return get(proxy.port, "/").status == 200
            return False

        wait_until(proxied, "an answer through the proxy", within=60)
        slow: list[Future[Response]] = []

        def restart(name: str) -> None:
            # So many that some go to this server, whatever the proxy's way to choose is.
            slow.extend(beside.submit(get, proxy.port, "/slow?s=1.2") for _ in range(12))
            server = servers[name]
            server.wait_for("slow began")
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert server.count("clean after") == 1
            time.sleep(1.2)  # an app that is slow to start: nobody listens meanwhile
            servers[name] = stack.enter_context(served_by(tmp_path, ports[name]))
            # The proxy uses it again: nobody else posts. (This test has asked it for "/" itself.)
            servers[name].wait_for(r'"POST /echo HTTP/1.1" 200', within=40)

        async def run_load() -> LoadResult:
            load = EndpointLoad(PLAN, port=proxy.port)

            async def restart_both() -> None:
                await anyio.sleep(0.5)
                load.mark_signalled()
                for name in ("8001", "8002"):
                    await anyio.to_thread.run_sync(restart, name)
                await anyio.sleep(0.3)
                await load.leave()

            return await load.run(until=restart_both, within=100)

        with posting(proxy.port) as posted:
            result = anyio.run(run_load)
        assert result.total.lost_total == 0, result
        assert not result.total.wrong
        assert result.after.served > 100
        assert list(posted) == [(200, b"4")]
        answers = [answer.result() for answer in slow]
        assert [answer.status for answer in answers] == [200] * 24
        # The server's "Connection: close" is for the proxy; what the client has goes on.
        assert not any(answer.closes for answer in answers)
