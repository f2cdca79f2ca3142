"""Hooks one uvicorn `Server` instance: every way of stopping it becomes a drain.

Wrapped on the instance are `shutdown` (which every way of stopping comes to), `main_loop` (where
`serve()` is cancelled), `on_tick` (which uvicorn calls every 0.1 s), its lifespan's `shutdown`
(which may hang), and the list of captured signals. No class is patched, nothing outlives the
server.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import anyio

from .. import log
from .._diagnostics.loop_monitor import LoopMonitor
from ..event_loop import import_for_waiting, running_asyncio_loop
from ..phase import Phase
from ..report import StuckWork
from . import old_uvicorn
from .adapter import UvicornAdapter
from .lifespan import HookedLifespan
from .outside_work import OutsideWork
from .signal_handlers import handles
from .signal_watch import SignalWatch
from .signals import CapturedSignals, HostProcess
from .sse_starlette import keep_event_streams_open, look_at_sse_starlette

if TYPE_CHECKING:
    from .._core.runner import DrainRunner
    from ..phase import PhaseChange
    from ..types import Scope
    from .socket_file import SocketFile
    from .touchpoints import Server, Sockets

TICK_PERIOD: Final = 0.1
"""uvicorn's own: it keeps the Date header and gunicorn's heartbeat going, and sees flags set."""

_ATTRIBUTE: Final = "_graceful_asgi_hook"


class UvicornHook:
    """One uvicorn server and its drain. Lives on the server's event loop."""

    def __init__(self, server: Server, drainer: DrainRunner) -> None:
        self.drainer = drainer
        self.server = server
        self.in_main_thread = threading.current_thread() is threading.main_thread()
        self.finished = False
        self._process = HostProcess.of_server()
        self._adapter = UvicornAdapter(server)
        self._signal_watch = SignalWatch(
            server,
            in_main_thread=self.in_main_thread,
            is_told=lambda: drainer.stopping or server.should_exit,
        )
        self._outside_work = OutsideWork(server, drainer)
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._has_opened = False
        self._startup_ends_at = 0.0
        self._exits_by = 0.0
        self._serve_task: asyncio.Task[Any] | None = None
        self._shutdown_task: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None

    @staticmethod
    def of(server: object) -> UvicornHook | None:
        """Return what has hooked *server*, if anything has."""
        return getattr(server, _ATTRIBUTE, None)

    def put_aside(self, scope: Scope) -> None:
        """Open what a stop will need. In a worker not on the event loop: it reads /proc."""
        self._adapter.put_aside(before_startup=scope["type"] == "lifespan")

    def give_back(self) -> None:
        """Close what was put aside, where the server is not hooked after all."""
        self._adapter.give_back()

    def install(self, scope: Scope) -> None:
        """Hook the server. From here on it drains, whichever way it is told to stop."""
        server, drainer, starts = self.server, self.drainer, scope["type"] == "lifespan"
        setattr(server, _ATTRIBUTE, self)
        self._uvicorn_shutdown, server.shutdown = server.shutdown, self.shutdown
        self._uvicorn_main_loop, server.main_loop = server.main_loop, self._main_loop
        self._uvicorn_on_tick, server.on_tick = server.on_tick, self._on_tick
        self._lifespan = HookedLifespan(server, drainer, asyncio.current_task() if starts else None)
        captured = list(getattr(server, "_captured_signals", ()))
        server._captured_signals = CapturedSignals(self)
        import_for_waiting()
        log.follow("uvicorn.error")
        log.start()
        name = f"{type(server).__module__}.{type(server).__qualname__}"
        log.hooked(name, drainer.policy, drainer.context.origins)
        look_at_sse_starlette()
        drainer.loop_monitor = LoopMonitor(drainer.now)
        drainer.server = self
        drainer.server_events.append(self)
        self._process.add(self)
        if drainer.stopping:  # another server has this drainer, too
            self.stop(drainer.reason)
        if self.in_main_thread and not old_uvicorn.raises_signals_anew(server):
            old_uvicorn.take_signals(self)
        if not starts:  # found at a request: `main_loop` is under way
            self._open()
        for signum in captured:  # one came before the server was found
            server._captured_signals.append(signum)

    # As told of what happens to the server

    def opened(self) -> None:
        """Change nothing: this is who says so."""

    def phase_changed(self, change: PhaseChange) -> None:
        """Stop as well, if another server with the same drainer has been stopped."""
        if self.drainer.stopping and not self._is_stopping:
            self.stop(change.reason)

    def closed(self) -> None:
        """Let go of the drainer: the server has stopped, or has failed to start."""
        self._adapter.give_back()
        self.drainer.server_events.remove(self)
        self.drainer.server = self.drainer.loop_monitor = self.drainer.lifespan = None
        log.stop()
        if not self._has_opened:  # whoever has started it may go on, and start another
            self._process.leave(self)

    # A stop

    def stop(self, reason: str, *, lame_duck: bool = True, failed: bool = False) -> None:
        """Have the server drain and end. Safe from any thread and in a signal handler. Idempotent.

        Args:
            reason: what the log and the report name as the cause.
            lame_duck: False skips the lame duck.
            failed: True where an exception that nobody handled is the cause.
        """
        # Nobody routes to a server that has not served yet. Under a reloader somebody has just
        # saved a file.
        lame_duck = lame_duck and self._has_opened and not self.server.config.reload
        self.drainer.stop(reason, lame_duck=lame_duck, failed=failed)
        if HostProcess.current().captured:
            self._adapter.note_signal()
        if self._is_stopping:
            return
        self._is_stopping = True
        keep_event_streams_open()  # the app may have imported sse-starlette after the start
        if self.drainer.loop_monitor is not None:
            self.drainer.loop_monitor.expect()
        policy = self.drainer.policy
        self._startup_ends_at = time.monotonic() + policy.cancel_period + policy.cleanup_period
        self._process.set_deadline()
        # Later, on the loop: `Server.handle_exit`, which may be running now, would take
        # `should_exit` for the sign of a second Ctrl+C, and set `force_exit`.
        self.drainer.notifier.post(self._end_main_loop)

    def _end_main_loop(self) -> None:
        self.server.should_exit = True
        if self._process.lacks_deadline:
            log.caution(
                "no thread could be started for the hard deadline: the drain goes on without it"
            )
        on_loop = running_asyncio_loop() is self._loop  # else the loop is blocked: the watchdog
        if on_loop and self._ticking is None and not self._has_opened:
            # uvicorn does not tick yet, and the loop would be taken for blocked.
            self._ticking = asyncio.ensure_future(self._tick_in_startup())

    async def _tick_in_startup(self) -> None:
        while not self._has_opened and self.drainer.loop_monitor is not None:
            self.drainer.loop_monitor.beat()
            await asyncio.sleep(TICK_PERIOD)

    def seconds_left(self) -> float:
        """Return the seconds until the server has to be gone, once a stop has come."""
        if self.finished:
            return max(0.0, self._exits_by - time.monotonic())
        if not self._has_opened:  # nothing is in flight that a lame duck or a grace period is for
            return max(0.0, self._startup_ends_at - time.monotonic())
        return self.drainer.whole_time_left()

    @property
    def gone(self) -> bool:
        """Whether nothing of the server will run again."""
        served = self._serve_task is not None and self._serve_task.done()
        return self._loop.is_closed() or (self.finished and served)

    # What uvicorn calls

    async def _main_loop(self) -> None:
        self._serve_task = asyncio.current_task()
        self._adapter.start_listening()
        self._open()
        self._signal_watch.look()
        try:
            await self._uvicorn_main_loop()
        except asyncio.CancelledError:
            # uvicorn would leave the listener open, and the lifespan without its shutdown.
            self.stop("serve() cancelled", lame_duck=False)
            with anyio.CancelScope(shield=True):
                await self.shutdown()
            raise

    def _open(self) -> None:
        self._has_opened = True
        self._lifespan.opened()
        self.drainer.server_opened()

    async def _on_tick(self, counter: int) -> bool:
        self._signal_watch.tick()
        if self.drainer.phase is not Phase.SERVING:
            self._outside_work.look()
        return await self._uvicorn_on_tick(counter)

    async def shutdown(self, sockets: Sockets | None = None) -> None:
        """Drain, then let uvicorn shut down what is left. In place of `Server.shutdown`.

        Re-entrant: a second caller waits for the one drain. A caller that is cancelled will not
        wait: what is in flight is cancelled, too.
        """
        caller = asyncio.current_task()
        if caller in self.server.server_state.tasks:
            # A request that waits for the end of all requests would wait for itself.
            self.stop("shutdown()")
            return
        if self._shutdown_task is None:
            self._serve_task = self._serve_task or caller
            self._shutdown_task = asyncio.ensure_future(self._shut_down(sockets))
        try:
            await asyncio.shield(self._shutdown_task)
        except asyncio.CancelledError:
            # A caller that the drain itself cancels has to let go at once.
            if not self._shutdown_task.done() and (
                self.drainer.waiting or caller is self._serve_task
            ):
                self.drainer.abort()
                with anyio.CancelScope(shield=True):
                    await asyncio.shield(self._shutdown_task)
            raise
        if caller is self._serve_task and not old_uvicorn.raises_signals_anew(self.server):
            old_uvicorn.end_serve(self)

    # The drain, and the end

    async def _shut_down(self, sockets: Sockets | None) -> None:
        server = self.server
        if not self._has_opened:  # stopped in its startup: `main_loop` was left out
            self._open()
        if not self.drainer.stopping:
            code_asked = "should_exit" if server.should_exit else "shutdown()"
            limited = not server.should_exit and server.config.limit_max_requests is not None
            self.stop("limit_max_requests" if limited else code_asked)
        self._process.set_deadline()
        if sockets is not None:
            self._adapter.share_sockets(stopped_by_signal=bool(self._process.captured))
        server.should_exit = True  # `on_tick` says less with it
        ticking = asyncio.ensure_future(self._tick())
        try:
            if await self._drain():
                self._adapter.cut_connections()
                self._process.work_is_over()
                await self._finish_uvicorn(sockets)
            else:  # what is in flight may finish, as it would without this package
                await self._shut_down_plainly(sockets)
        finally:
            self._adapter.cut_connections()
            self._exits_by = time.monotonic() + self.drainer.whole_time_left()
            report = self.drainer.finish()
            await self._process.finish(self, report.exit_code, ends_process=self._ends_process)
            ticking.cancel()

    async def _drain(self) -> bool:
        """Drain; return False, with the error in the log and in the report, if that fails."""
        drainer = self.drainer
        try:
            await drainer.drain(self._adapter)
        except Exception:
            log.failed("the drain failed; uvicorn shuts down by itself")
            age = drainer.state.elapsed(drainer.now())
            drainer.record.failed(drainer.state, StuckWork("task", "", "drain", age, "failed", ""))
            return False
        return True

    @property
    def _ends_process(self) -> bool:
        """Whether the process ends with the server although no signal has come.

        uvicorn calls `CapturedSignals` then as well, unless somebody else handles the signals.
        """
        failed = self.drainer.state.failed and self.in_main_thread
        return failed and handles(self.server, signal.SIGTERM)

    async def _tick(self) -> None:
        """Go on with what uvicorn's main loop does, and look at the flags it looks at."""
        server, drainer = self.server, self.drainer
        for counter in itertools.count():
            try:
                await server.on_tick(counter)
            except Exception:
                log.failed("uvicorn's on_tick failed; the drain goes on")
            if server.force_exit and drainer.waiting:
                drainer.abort()
            if drainer.phase is not Phase.LAME_DUCK:
                self._adapter.sweep(drainer.time_left())
            if drainer.loop_monitor is not None:
                drainer.loop_monitor.beat()
            drainer.notifier.wake()
            await asyncio.sleep(TICK_PERIOD)

    async def _finish_uvicorn(self, sockets: Sockets | None) -> None:
        """Have uvicorn shut down a server that has nothing left: it runs lifespan.shutdown."""
        server, state = self.server, self.server.server_state
        # What is still there has had its time: a handler that swallows its cancellation, silent
        # TLS handshakes (Python 3.12 and later wait for those), a connection that cannot close
        # (which uvicorn's loop over them does not survive).
        kept = server.servers, state.connections, state.tasks
        server.servers, state.connections, state.tasks = [], set(), set()
        server.force_exit = False  # or uvicorn would leave lifespan.shutdown out
        try:
            await self._shut_down_plainly(sockets)
        finally:
            server.servers, state.connections, state.tasks = kept

    async def _shut_down_plainly(self, sockets: Sockets | None) -> None:
        await (self._uvicorn_shutdown() if sockets is None else self._uvicorn_shutdown(sockets))

    # For whoever runs the server

    @property
    def socket_file(self) -> SocketFile | None:
        """The file of its UNIX socket, if it listens on one that it has made."""
        return self._adapter.socket_file

    def exit_code(self) -> int | None:
        """Return what the process should exit with; None while the drain is not over."""
        return self.drainer.report().exit_code if self.finished else None

    @property
    def failed(self) -> bool:
        """Whether an exception that nobody handled has stopped the server."""
        return self.drainer.state.failed
