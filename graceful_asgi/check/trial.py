"""One trial: a server under load, told to stop in the middle, followed to its exit."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import anyio

from graceful_asgi.check.errors import CheckError
from graceful_asgi.check.load import Load, LoadStatistics

if TYPE_CHECKING:
    from graceful_asgi.check.counts import LoadResult
    from graceful_asgi.check.plan import LoadPlan
    from graceful_asgi.check.process import ServerProcess

_WATCH_INTERVAL: Final = 0.1
_EXIT_NOTICE_PERIOD: Final = 0.5

Stage: TypeAlias = Literal["starting", "under load", "told to stop", "exited"]
Watch: TypeAlias = Callable[[Stage, LoadStatistics], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The raw facts of one trial: the clients' side and the process's."""

    load: LoadResult
    exit_code: int
    """Negative: the signal that ended the process."""
    seconds_to_exit: float
    """From the signal to the exit; to the kill, when it had to be killed."""
    killed: bool
    """It was still running when the deadline passed."""


async def run_trial(
    server: ServerProcess,
    plan: LoadPlan,
    *,
    signal_after: float = 3.0,
    exit_period: float = 40.0,
    number: int = signal.SIGTERM,
    watch: Watch | None = None,
) -> Trial:
    """Start `server`, put `plan` on it, send the signal after `signal_after` seconds of load.

    The load goes on until the server has exited; `exit_period` seconds after the signal the server
    is killed. `watch` is called about every 0.1 s, in this loop, for display. Raises `CheckError`
    when there is nothing to judge: no start, an exit or a refused connect before the signal.
    """
    tell = watch or _unwatched
    tell("starting", LoadStatistics(sent=0, lost=0, refused=0, in_flight=0))
    async with server:
        load = Load(plan, host=server.host, port=server.port)
        running = asyncio.ensure_future(
            load.run(until=server.wait_exit, within=signal_after + exit_period)
        )
        try:
            await _follow(running, lambda: tell("under load", load.statistics()), signal_after)
            if running.done():
                await _raise_setup_error(running, server)
            # One step, no await: no request is written between the mark and the signal.
            load.mark_signalled()
            server.signal(number)
            await _follow(running, lambda: tell("told to stop", load.statistics()), math.inf)
            result = running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        server.kill()
        tell("exited", load.statistics())
        return _facts(result, server)


async def _follow(
    running: asyncio.Future[LoadResult], tell: Callable[[], None], within: float
) -> None:
    """Call `tell` now and then until `running` is done or `within` seconds have passed."""
    deadline = time.monotonic() + within
    while not running.done() and (left := deadline - time.monotonic()) > 0:
        tell()
        await asyncio.wait({running}, timeout=min(left, _WATCH_INTERVAL))


async def _raise_setup_error(running: asyncio.Future[LoadResult], server: ServerProcess) -> None:
    """Raise what ended the load too early, unless that was the exit of the server.

    A server that exits closes its port first: clients may know before we do.
    """
    with anyio.move_on_after(_EXIT_NOTICE_PERIOD):
        await server.wait_exit()
    if server.running:
        running.result()


def _facts(result: LoadResult, server: ServerProcess) -> Trial:
    exit_code, seconds = server.exit_code, server.seconds_to_exit
    if exit_code is None or seconds is None:
        raise CheckError(f"process {server.pid} was killed and its exit was not seen")
    return Trial(load=result, exit_code=exit_code, seconds_to_exit=seconds, killed=server.killed)


def _unwatched(stage: Stage, statistics: LoadStatistics) -> None:
    pass
