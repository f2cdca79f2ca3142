"""Losses where the middleware is passive, and how much a drain before the stop mends.

`PYTHONPATH=tests python -m tests.bench.passive` writes the tables of
docs/explanation/other-servers.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from rich.console import Console

from graceful_asgi._check.errors import CheckError
from graceful_asgi._check.load import Load
from graceful_asgi._check.server.port import free_port
from graceful_asgi._check.server.process import TargetProcess

from .contestants import APP, Entrant, _python
from .servers import PLAN, ROOT, SETTINGS, Line, circumstances, compare, write

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = ROOT / "docs" / "explanation" / "other-servers.md"
HAPROXY = ROOT / "docs" / "how-to" / "manifests" / "haproxy.cfg"
HERE = "127.0.0.1:{port}"
SERVERS = {
    "hypercorn": ("hypercorn", "-b", HERE),
    "hypercorn -k trio": ("hypercorn", "-k", "trio", "-b", HERE),
    "granian": ("granian", "--interface", "asgi", "--no-log", "--port", "{port}"),
    "daphne": ("daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0"),
    "gunicorn -k asgi": ("gunicorn", "-k", "asgi", "--log-level", "warning", "-b", HERE),
    "uvicorn": ("uvicorn", "--log-level", "warning", "--port", "{port}"),
}
ALONE, PASSIVE, DRAINED = "alone", "with the middleware", "drained before the stop"
WAYS = {ALONE: "plain", PASSIVE: "drainable", DRAINED: "drainable"}

# Some of these servers answer a thousand requests a second. Under more than that, connections wait
# in the accept queue all the time, and all of them are lost at a stop, in each of the ways.
GENTLE = replace(PLAN, keep_alive_clients=40, fresh_clients=20, think_period=0.2)
LIGHT = replace(SETTINGS, plan=GENTLE)


def command(name: str, way: str) -> tuple[str, ...]:
    """Return the command of a server in one of the ways."""
    module, *arguments = SERVERS[name]
    plain = (sys.executable, "-m", module, *arguments, f"{APP}:{WAYS[way]}")
    hook = (sys.executable, "-m", "tests.bench.peers.prestop", "{port}")
    return (*hook, *plain) if way == DRAINED else plain


# Without a router: every client goes on sending to the server that stops


def entrants() -> Iterator[Entrant]:
    """Yield each server, alone and with the middleware."""
    for name, (module, *_) in SERVERS.items():
        for way in (ALONE, PASSIVE):
            yield _python(f"{name}, {way}", module, command(name, way))


def direct_table(lines: list[Line], rounds: int) -> str:
    """Return a row for each server, and in it the losses in each of the ways."""
    rows = [f"| server | {ALONE} | {PASSIVE} |", "| --- | ---: | ---: |"]
    for name in SERVERS:
        cells = [_direct_cell(each, rounds) for each in lines if _is_of(each.entrant, name)]
        if cells:
            rows.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(rows)


def _is_of(entrant: Entrant, name: str) -> bool:
    return entrant.name.rpartition(", ")[0] == name


def _direct_cell(line: Line, rounds: int) -> str:
    if reason := line.entrant.reason or line.failure:
        return f"not run: {reason}"
    trials = line.target.trials
    with_loss = sum(trial.load.total.lost_total > 0 for trial in trials)
    return _cell(line.target.verdict.lost_total, with_loss, rounds)


def _cell(lost: int, with_loss: int, rounds: int) -> str:
    return f"{lost:,} ({with_loss} of {rounds} rounds)" if lost else "**0**"


# Behind HAProxy: two servers, of which one stops


async def one_stop(name: str, way: str, directory: Path) -> tuple[int, int]:
    """Stop one of two servers behind HAProxy; return the failed requests, and all of them."""
    ports = {"8001": free_port(), "8002": free_port(), "8080": free_port()}
    text = HAPROXY.read_text(encoding="utf-8")
    for given, port in ports.items():
        text = re.sub(rf"\b{given}\b", str(port), text)
    (directory / "haproxy.cfg").write_text(text, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    async with contextlib.AsyncExitStack() as stack:

        async def start(argv: tuple[str, ...], port: int) -> TargetProcess:
            argv = tuple(each.format(port=port) for each in argv)
            log = directory / f"{port}.log"
            process = TargetProcess(argv, port=port, log_path=log, env=env, ready_path="/")
            return await stack.enter_async_context(process)

        stopped = await start(command(name, way), ports["8001"])
        await start(command(name, ALONE), ports["8002"])
        haproxy = (shutil.which("haproxy") or "haproxy", "-db", "-f", f"{directory}/haproxy.cfg")
        await start(haproxy, ports["8080"])
        await anyio.sleep(1.2)  # until HAProxy has asked both of them
        load = Load(GENTLE, port=ports["8080"])

        async def stop() -> None:
            await anyio.sleep(1)
            load.mark_signalled()
            stopped.signal(signal.SIGTERM)
            await anyio.to_thread.run_sync(stopped.wait, 20)
            await anyio.sleep(1)

        result = await load.run(until=stop, within=40)
    total = result.total
    return total.lost_total + total.wrong_total, total.served


def proxied_table(rounds: int, chosen: list[str], console: Console) -> str:
    """Measure, and return a row for each server."""
    rows = [f"| server | {' | '.join(WAYS)} |", "| --- |" + " ---: |" * len(WAYS)]
    for name in chosen:
        cells = []
        for way in WAYS:
            failures: list[int] = []
            while len(failures) < rounds:
                try:
                    with tempfile.TemporaryDirectory(prefix="graceful-asgi-") as directory:
                        failed, served = anyio.run(one_stop, name, way, Path(directory))
                except CheckError as error:  # another process took a port
                    console.print(str(error).splitlines()[0], markup=False)
                    continue
                console.print(f"{name}, {way}: {failed} of {failed + served:,} failed")
                failures.append(failed)
            cells.append(_cell(sum(failures), sum(map(bool, failures)), rounds))
        rows.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What servers lose with a passive middleware.")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each server")
    parser.add_argument("--only", default="", help="servers whose name contains this; not written")
    options = parser.parse_args()
    console, rounds = Console(highlight=False), options.rounds
    chosen = [each for each in entrants() if options.only in each.name]
    lines = anyio.run(compare, chosen, rounds, console, LIGHT)
    direct = f"{circumstances(lines, rounds, LIGHT)}\n\n{direct_table(lines, rounds)}"
    console.print(direct, markup=False, soft_wrap=True)
    names = [name for name in SERVERS if options.only in name]
    proxied = proxied_table(rounds, names, console)
    console.print(proxied, markup=False, soft_wrap=True)
    if not options.only:
        write(direct, PAGE, "passive")
        write(proxied, PAGE, "proxied")


if __name__ == "__main__":
    main()
