"""`HookedLifespan`: bounds a uvicorn server's lifespan, and shows where the app hangs in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import anyio

from .. import log
from .._core.stuck_report import stuck_work
from .._core.work import Work
from .._diagnostics.trail import frames_of
from .finder import is_served, runs, task_of

if TYPE_CHECKING:
    from typing import Any

    from .._core.runner import DrainRunner
    from .._core.server_adapter import StoppableServer
    from ..report import Kind
    from .touchpoints import Server


class LifespanWork(Work):
    """`lifespan.startup` or `lifespan.shutdown`, for the stuck report. It does not count as in
    flight: no client waits for it."""

    __slots__ = ("_path", "_progress")

    kind: ClassVar[Kind] = "lifespan"

    def __init__(self, drainer: DrainRunner, path: str, task: asyncio.Task[Any] | None) -> None:
        self.began = drainer.now()
        self._path = path
        self._progress = "running"
        self.task = task

    @property
    def path(self) -> str:
        return self._path

    @property
    def progress(self) -> str:
        return self._progress

    def fail(self) -> None:
        """Note that the app raised in it, or sent that it failed."""
        self._progress = "failed"


class HookedLifespan:
    """The lifespan of one server. In place of `LifespanOn.shutdown`, on the server's loop.

    It is made in the task that the app's lifespan runs in, if the server *starts*. Otherwise that
    task is not known.
    """

    def __init__(
        self, hook: StoppableServer, server: Server, drainer: DrainRunner, *, starts: bool
    ) -> None:
        self.has_opened = False
        """True once the startup is over."""
        self._hook = hook
        self._server = server
        self._drainer = drainer
        self._task = task = asyncio.current_task() if starts else None
        self._lifespan = server.lifespan
        self._uvicorn_shutdown = server.lifespan.shutdown
        server.lifespan.shutdown = self.shutdown
        self._serve_task: asyncio.Task[Any] | None = None
        if task is not None:
            self._serve_task = task_of(server)
            drainer.lifespan = LifespanWork(drainer, "lifespan.startup", task)
            task.add_done_callback(self._app_has_ended)

    def opened(self) -> None:
        """Take note that the startup is over."""
        self.has_opened = True
        self._drainer.lifespan = None

    @property
    def serves_anew(self) -> bool:
        """True if the program has called `serve()` of the same server again.

        Each `Server._serve` begins with a new lifespan object. A program may set `should_exit` back
        and start its server once more.
        """
        return self._server.lifespan is not self._lifespan

    def is_abandoned(self) -> bool:
        """Return True if `serve()` has ended in its startup, and the app does not know.

        The program has cancelled it, or uvicorn has raised: where it cannot listen on a UNIX socket
        or on a socket that it was given, it does not run `lifespan.shutdown`.
        """
        # A program that calls `startup`, `main_loop` and `shutdown` itself may do something else in
        # between: then its server has started.
        if self._server.started or self._serve_task is None:
            return False
        # The first look is cheap, however many tasks there are.
        return not runs(self._serve_task, self._server) and not is_served(self._server)

    def _app_has_ended(self, task: asyncio.Task[Any]) -> None:
        """Release the drainer if the app raised in its startup, and the server ends with that.

        Where its lifespan is "auto" the server goes on, and takes the app for one without it.
        """
        if not self.has_opened and not is_served(self._server):
            self._drainer.notifier.start_failed(self._hook)

    def is_inside(self, *objects: object) -> bool:
        """Return True if the app is in its startup or shutdown, in a method of one of *objects*."""
        work = self._drainer.lifespan
        if work is None or work.task is None:
            return False
        return any(
            frame.f_locals.get("self") in objects for frame in frames_of(work.task.get_coro())
        )

    async def shutdown(self) -> None:
        """Run `lifespan.shutdown`, for as long as the cleanup period lasts."""
        drainer, before = self._drainer, self._errors()
        drainer.lifespan = work = LifespanWork(drainer, "lifespan.shutdown", self._task)
        with anyio.move_on_after(drainer.time_left()) as cancel_scope:
            await self._uvicorn_shutdown()
        if cancel_scope.cancelled_caught:
            drainer.record.overran(drainer.state, stuck_work(work, drainer.now()))
            self._mute()
        elif self._errors() != before:  # an app without a lifespan has had its error before
            work.fail()
            drainer.record.failed(drainer.state, stuck_work(work, drainer.now(), closely=False))
        drainer.lifespan = None
        if not self.has_opened:  # uvicorn could not listen, and ends without its own `shutdown`
            drainer.notifier.start_failed(self._hook)

    def _errors(self) -> list[bool]:
        # Before 0.41 uvicorn spelled the name with one r.
        names = ("shutdown_failed", "error_occurred", "error_occured")
        return [bool(getattr(self._server.lifespan, name, False)) for name in names]

    def _mute(self) -> None:
        """Silence uvicorn about a lifespan that was given up and is in the report already.

        As the loop ends, asyncio cancels the app's task; Starlette sends that as
        `lifespan.shutdown.failed`, with a traceback of 40 lines for a message.
        """
        if hasattr(self._server.lifespan, "logger"):
            self._server.lifespan.logger = log.MUTED
