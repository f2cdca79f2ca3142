"""One trial: a server under load, told to stop in the middle, followed to its exit."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import anyio

from .errors import CheckError, PathError
from .load import Load, LoadStatistics
from .result.finding import Exit
from .result.verdict import ClientUse, Trial
from .server.drain_log import PhaseWatch
from .server.port import connects

if TYPE_CHECKING:
    from .client.expectation import Expectation
    from .client.plan import Endpoint, LoadPlan
    from .result.counts import LoadResult
    from .scenarios.base import Scenario
    from .server.process import TargetProcess

_WATCH_INTERVAL: Final = 0.1
# The lines of a log need not have a time: a phase begins when its line is seen.
_LOOK_INTERVAL: Final = 0.02
_EXIT_NOTICE_PERIOD: Final = 0.5
# A handshake or a first event may take its time; a scenario that never gets there says so itself.
_POSITION_PERIOD: Final = 5.0

Step: TypeAlias = Literal["starting", "learning", "under load", "told to stop", "exited"]
Watch: TypeAlias = Callable[[Step, LoadStatistics], None]


async def stop_under_load(
    server: TargetProcess,
    plan: LoadPlan,
    *,
    signal_after: float = 3.0,
    exit_period: float = 40.0,
    number: int = signal.SIGTERM,
    again_after: Sequence[float] = (),
    scenarios: Sequence[Scenario] | None = None,
    expectations: dict[Endpoint, Expectation] | None = None,
    watch: Watch = lambda step, statistics: None,
) -> Trial:
    """Put `plan` on a running server, and send the signal after `signal_after` seconds of load.

    Before that, its right answers are learned into `expectations`, which has those of earlier runs
    of the same server. The signal waits a little for scenarios that are not in position yet, and is
    sent again `again_after` seconds from the first one, each. The load goes on until the server has
    exited; `exit_period` seconds after the signal the server is killed. `watch` is called about
    every 0.1 s, in this loop, for display.

    Raises `CheckError` when there is nothing to judge: an exit or a refused connect before the
    signal, or a path that does not answer as it should.
    """
    load = Load(
        plan,
        host=server.host,
        port=server.port,
        scenarios=scenarios,
        expectations=expectations,
    )
    watch("learning", load.statistics())
    try:
        await load.learn(within=max(exit_period, plan.answer_period))
    except PathError:
        await _notice_exit(server)
        server.check_running()
        raise
    use = _Use()
    running = asyncio.ensure_future(load.run(until=server.wait_exit, within=math.inf))
    phases = PhaseWatch(server.log_path)
    tasks: list[asyncio.Future[Any]] = [running, asyncio.ensure_future(_watch_phases(phases))]
    try:
        await _follow(running, lambda: watch("under load", load.statistics()), signal_after)
        await _wait_in_position(load, running)
        if running.done():
            await _raise_setup_error(running, server)
        # One step, no await: no request is written between the mark and the signal.
        load.mark_signalled()
        server.signal(number)
        use.note()
        tasks.append(asyncio.ensure_future(_repeat(server, number, again_after)))
        await _follow(running, lambda: watch("told to stop", load.statistics()), exit_period)
        late = server.running
        # The clients stop here, and what is unanswered is lost. The kill comes later, so that
        # nothing is blamed on the server that only the kill has cut.
        load.stop()
        result = await running
        use.note()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    phases.look(time.monotonic())
    left_running = await _left_running(server)
    server.kill()
    still_open = connects(server.host, server.port)
    watch("exited", load.statistics())
    end = _exit(server, late=late, left_running=left_running, still_open=still_open)
    return Trial(
        load=result,
        end=end,
        findings=tuple(load.findings(end)),
        samples=tuple(load.timeline.samples()),
        first_refusal=load.timeline.first_refusal,
        phases={name: at - load.signalled_at for name, at in phases.began.items()},
        client=use.most,
        notes=tuple(load.notes),
        expected={each.text: right.text for each, right in load.expectations.items()},
    )


async def _watch_phases(phases: PhaseWatch) -> None:
    while True:
        phases.look(time.monotonic())
        await asyncio.sleep(_LOOK_INTERVAL)


async def _follow(
    running: asyncio.Future[LoadResult], tell: Callable[[], None], within: float
) -> None:
    """Call `tell` now and then until `running` is done or `within` seconds have passed."""
    deadline = time.monotonic() + within
    while not running.done() and (left := deadline - time.monotonic()) > 0:
        tell()
        await asyncio.wait({running}, timeout=min(left, _WATCH_INTERVAL))


async def _wait_in_position(load: Load, running: asyncio.Future[LoadResult]) -> None:
    position = asyncio.ensure_future(load.in_position())
    try:
        await asyncio.wait(
            (position, running), timeout=_POSITION_PERIOD, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        position.cancel()


async def _repeat(server: TargetProcess, number: int, again_after: Sequence[float]) -> None:
    began = time.monotonic()
    for after in again_after:
        await asyncio.sleep(began + after - time.monotonic())
        if server.running:
            server.signal(number)


async def _raise_setup_error(running: asyncio.Future[LoadResult], server: TargetProcess) -> None:
    """Raise what ended the load too early, unless that was the exit of the server.

    A server that exits closes its port first: clients may know before we do.
    """
    await _notice_exit(server)
    if server.running:
        running.result()


async def _notice_exit(server: TargetProcess) -> None:
    """Give the exit of a server time to be seen: its clients may know before this process does."""
    with anyio.move_on_after(_EXIT_NOTICE_PERIOD):
        await server.wait_exit()


async def _left_running(server: TargetProcess) -> int:
    """Return how many processes outlive the server by more than it takes to see it go."""
    with anyio.move_on_after(_EXIT_NOTICE_PERIOD):
        # Polled: the kernel reports the end of a process to its parent alone.
        while server.left_running() and not server.running:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    return server.left_running()


def _exit(server: TargetProcess, *, late: bool, left_running: int, still_open: bool) -> Exit:
    code, seconds = server.exit_code, server.seconds_to_exit
    if code is None or seconds is None:
        raise CheckError(f"process {server.pid} was killed and its exit was not seen")
    if late:
        # It may have found, in the moment before the kill, that its last client had hung up.
        code = -signal.SIGKILL
    return Exit(
        code=code, seconds=seconds, late=late, left_running=left_running, still_open=still_open
    )


class _Use:
    """Measures what this process takes of the machine, from one note to the next."""

    _SHORTEST: Final = 0.2
    """Seconds. What is shorter is no measure of a load."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self.most = ClientUse()

    def note(self) -> None:
        """End a part of the run; the part with the highest use counts."""
        wall, cpu = time.monotonic(), time.process_time()
        passed = wall - self._wall
        if passed >= self._SHORTEST:
            core = (cpu - self._cpu) / passed
            machine = core / (os.cpu_count() or 1)
            self.most = max(
                self.most, ClientUse(core=core, machine=machine), key=lambda use: use.core
            )
        self._wall, self._cpu = wall, cpu
