"""An app that forks in every way Python has, and answers with the threads that each fork saw."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import multiprocessing
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

from graceful_asgi import GracefulMiddleware
from support.forks_seen import at_fork, count_threads

if TYPE_CHECKING:
    from graceful_asgi.types import Receive, Scope, Send

forking = multiprocessing.get_context("fork")


def nothing() -> None:
    """Do nothing in the child."""


def child_of(pid: int) -> None:
    """End the child at once, or wait for it in the parent."""
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


async def fork_in_every_way() -> None:
    child_of(os.fork())
    pid, terminal = pty.fork()
    child_of(pid)
    os.close(terminal)
    process = forking.Process(target=nothing)
    process.start()
    process.join()
    subprocess.run(["true"], preexec_fn=nothing, check=True)  # noqa: ASYNC221  # on the loop
    await asyncio.sleep(0)  # some interpreters have the threads back at the loop's next turn
    threads = count_threads()
    child = await asyncio.create_subprocess_exec("true", preexec_fn=nothing)
    await child.wait()
    # Before Python 3.12 a thread of asyncio waits for the child.
    while count_threads() > threads:  # noqa: ASYNC110  # the kernel tells nobody that it has ended
        await asyncio.sleep(0.01)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=forking) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, nothing)


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    if scope["path"] == "/stop":
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
    await fork_in_every_way()
    body = json.dumps(at_fork).encode()
    length = str(len(body)).encode()
    headers = [(b"content-length", length), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


graceful = GracefulMiddleware(plain)
