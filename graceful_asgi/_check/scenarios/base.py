"""The base class of the scenarios: one way of using a server across its stop."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import anyio

from ..result.counts import LoadResult
from ..result.finding import Finding

if TYPE_CHECKING:
    from ..client.http1 import HttpConnection
    from ..client.plan import Endpoint, LoadPlan
    from ..client.run import Run
    from ..result.finding import Exit, Result


class Scenario(ABC):
    """One way of using a server across its stop. Single use: one run, then one finding."""

    name: ClassVar[str]
    option: ClassVar[str] = "--path"
    """The option that gives the path; that of the load, for a scenario without one of its own."""
    learns = True
    """The right answers of its path are learned before the load."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.load = LoadResult()
        self.in_position = anyio.Event()
        """Set when the signal may come: what has to be in flight is there, or never will be."""
        self._reason = ""
        self._planned = plan.endpoint(self.option)
        self._is_asked_for = self._planned is not None and self.option != Scenario.option
        if self._planned is None:
            self.not_run(f"needs {self.option}")

    @property
    def endpoint(self) -> Endpoint:
        """The request of a scenario that is run. `RuntimeError` if the plan has none."""
        if self._planned is None:
            raise RuntimeError(f"{self.name}: the plan has no request for it")
        return self._planned

    async def prepare(self, run: Run) -> None:
        """Find out, before the load, whether the server can do what this scenario asks for.

        Raises `PathError` when it cannot although the plan asks for it.
        """
        return

    @property
    def is_left_out(self) -> bool:
        """Return True when it is known already that there is nothing to run."""
        return bool(self._reason)

    @abstractmethod
    async def carry_out(self, run: Run) -> None:
        """Use the server until there is nothing left to see. May be cancelled when it has gone."""

    @abstractmethod
    def judge(self, end: Exit) -> Finding:
        """Return the finding, once the server has gone. For a scenario that was run."""

    def finding(self, end: Exit) -> Finding:
        """Return the finding, or why there is none.

        What was asked for and could not be shown is "untested", and no success.
        """
        if not self._reason:
            return self.judge(end)
        result: Result = "untested" if self._is_asked_for else "not run"
        return Finding(self.name, result, self._reason, self.load)

    def not_run(self, reason: str) -> None:
        """Note that the scenario could not take place, and why. The first reason counts."""
        self._reason = self._reason or reason

    def leave_out(self, reason: str) -> None:
        """Do not run it: nobody wants it, so nothing is missing."""
        self._is_asked_for = False
        self.not_run(reason)

    async def think(self) -> None:
        """Pause as a client does between two requests."""
        await anyio.sleep(random.uniform(0, self.plan.think_period))

    async def connect_in_time(self, run: Run) -> HttpConnection | None:
        """Connect shortly before the signal. None: there is no connection, or the signal came."""
        await run.poised.wait()
        connection = await run.connect(self.load)
        if connection is not None and not run.signalled.is_set():
            return connection
        if connection is not None:
            connection.close()
        self.not_run("no connection before the signal")
        return None

    async def read_to_end(self, run: Run, connection: HttpConnection) -> tuple[bytes, float | None]:
        """Read until the server ends the connection. Return what came, and when (`since_signal`).

        None instead of the time: it was open at the end of the run, or closed before the signal.
        """
        data = b""
        self.in_position.set()
        try:
            with run.waiting(connection):
                while more := await connection.read():
                    data += more
        except TimeoutError:
            return data, None
        except OSError:  # a reset is an end as well
            pass
        if not run.signalled.is_set():
            self.not_run("closed before the signal")
            return data, None
        return data, since_signal(run)


def since_signal(run: Run) -> float:
    """Return the seconds from the signal to now; negative before it is sent."""
    signalled_at = run.timeline.signalled_at
    return -1.0 if signalled_at is None else time.monotonic() - signalled_at
