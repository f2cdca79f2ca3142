"""Hooks one uvicorn `Server` instance: every way of stopping it becomes a drain.

Wrapped on the instance are `shutdown` (which every stop ends in), `main_loop` (where `serve()` is
cancelled), `on_tick` (which uvicorn calls every 0.1 s), its lifespan's `shutdown` (which may hang),
and the list of captured signals. No class is patched, nothing outlives the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio

from .. import log
from .._core.server_adapter import StoppableServer
from .._diagnostics.loop_monitor import LoopMonitor
from ..event_loop import import_for_waiting, monotonic
from ..phase import Phase
from ..report import StuckWork
from . import old_uvicorn
from .lifespan import HookedLifespan
from .outside_work import OutsideWork
from .own_methods import OwnMethods
from .pause import end_pause
from .signal_watch import SignalWatch
from .signals import CapturedSignals, HostProcess
from .sse_starlette import keep_event_streams_open, look_at_sse_starlette
from .uvicorn_adapter import UvicornAdapter

if TYPE_CHECKING:
    from .._core.runner import DrainRunner
    from ..phase import PhaseChange
    from ..types import Scope
    from .signals import HookedServer
    from .socket_file import SocketFile
    from .touchpoints import Server, Sockets

TICK_PERIOD: Final = 0.1
"""Seconds between two ticks, as in uvicorn's main loop. A tick renews the Date header and
gunicorn's heartbeat, and reads the server's flags."""

_ATTRIBUTE: Final = "_graceful_asgi_hook"


class UvicornHook(StoppableServer):
    """One uvicorn server and its drain. Lives on the server's event loop."""

    def __init__(self, server: Server, drainer: DrainRunner) -> None:
        self.drainer = drainer
        self.server = server
        self.in_main_thread = threading.current_thread() is threading.main_thread()
        self.finished = False
        self.captured = CapturedSignals(self)
        self.process = HostProcess.current()
        self.adapter = UvicornAdapter(server, drainer.notifier.wake)
        self._signal_watch = SignalWatch(self)
        self._outside_work = OutsideWork(server, drainer)
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        """True once this server was made to stop. Its drainer may have been before, by another."""
        self._ends_by = 0.0
        """The time by which a stop in the startup, or one whose drain is over, has to end."""
        self._cancellations = 0
        """The number of times that `serve()` has been cancelled."""
        self._serve_task: asyncio.Task[Any] | None = None
        self._shutdown_task: asyncio.Task[None] | None = None

    @staticmethod
    def of(server: object) -> UvicornHook | None:
        """Return the hook of *server* for the `serve()` that runs, or has run last, if there is."""
        hook: UvicornHook | None = getattr(server, _ATTRIBUTE, None)
        return None if hook is None or hook.serves_anew else hook

    @property
    def serves_anew(self) -> bool:
        """True if the program has called `serve()` again: this hook belongs to the one before."""
        return self._lifespan.serves_anew

    def install(self, scope: Scope) -> None:
        """Hook the server. From here on every way of stopping it begins a drain."""
        server, drainer, starts = self.server, self.drainer, scope["type"] == "lifespan"
        if before := getattr(server, _ATTRIBUTE, None):  # of a `serve()` before this one
            before._own.put_back()
        self._own = OwnMethods(server)
        server.shutdown, server.main_loop = self.shutdown, self._main_loop
        server.on_tick = self._on_tick
        self._lifespan = HookedLifespan(self, server, drainer, starts=starts)
        setattr(server, _ATTRIBUTE, self)
        captured = getattr(server, "_captured_signals", [])  # not before uvicorn 0.29
        server._captured_signals = self.captured
        import_for_waiting()
        log.start()
        name = f"{type(server).__module__}.{type(server).__qualname__}"
        log.hooked(name, drainer.policy, drainer.context.origins)
        look_at_sse_starlette()
        drainer.loop_monitor = LoopMonitor(drainer.now)
        drainer.notifier.server_events.append(self)
        self.process.add(self)
        if drainer.state.stopping and not self._is_stopping:  # another server has this drainer, too
            self.stop(drainer.state.reason)
        if self.in_main_thread and not old_uvicorn.raises_signals_anew(server):
            old_uvicorn.take_signals(self)
        if starts:
            self._tick_in_startup()
        else:  # found at a request: `main_loop` is under way
            self._open()
        # Signals that came before this. Those of an earlier `serve()` are in uvicorn's own list as
        # well, which it never empties, but not in `should_exit`.
        if server.should_exit:
            for signum in getattr(captured, "unhandled", captured):
                self.captured.append(signum)

    # As `ServerEvents`

    def phase_changed(self, change: PhaseChange) -> None:
        """Stop as well, if another server with the same drainer has been stopped."""
        if self.drainer.state.stopping and not self._is_stopping:
            self.stop(change.reason)

    def closed(self) -> None:
        """Release the drainer: the server has stopped, or has failed to start."""
        self.adapter.give_back()
        self.drainer.lifespan = None
        if self.drainer.server is None:  # else another one has the drainer, too
            self.drainer.loop_monitor = None
        log.stop()
        if not self._lifespan.has_opened:  # the program may go on, and start another server
            self.process.leave(self)

    # A stop

    def stop(self, reason: str, *, lame_duck: bool = True, failed: bool = False) -> None:
        """Make the server drain and end. Safe in a signal handler, too (`StoppableServer.stop`)."""
        # No lame duck for a server that has not served yet, because no router knows it, nor under
        # `--reload`, because a person has just saved a file and waits.
        has_opened = self._lifespan.has_opened
        lame_duck = lame_duck and has_opened and not self.server.config.reload
        self.drainer.stop(reason, lame_duck=lame_duck, failed=failed)
        if self.process.captured:
            self.adapter.note_signal()
        if self._is_stopping:
            return
        self._is_stopping = True
        keep_event_streams_open()  # the app may have imported sse-starlette after the start
        if self.drainer.loop_monitor is not None:
            self.drainer.loop_monitor.expect()  # a loop that is blocked already is, from now on
        if not has_opened:  # nothing is in flight: no lame duck and no grace period
            policy = self.drainer.policy
            self._ends_by = monotonic() + policy.cancel_period + policy.cleanup_period
        self.process.set_deadline()
        # Set `should_exit` later, on the loop: `Server.handle_exit` may be running now, and would
        # read `should_exit=True` as a second Ctrl+C and set `force_exit`.
        self.drainer.notifier.post(self._end_main_loop)

    def _end_main_loop(self) -> None:
        self.server.should_exit = True
        # The watchdog calls this from its thread if the loop is stuck.
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(end_pause, self._serve_task)
        if self.process.lacks_deadline:
            log.caution(
                "no thread could be started for the hard deadline: the drain goes on without it"
            )

    def _tick_in_startup(self) -> None:
        """Wake the loop every 0.1 s until uvicorn's main loop does, or the startup fails.

        Python runs a signal handler in the main thread, between two byte codes. A signal interrupts
        no `epoll_wait` that has not begun yet, or if the kernel gives it to another thread. Its
        handler then runs when the loop wakes. A startup that hangs would never wake it.
        """
        notifier = self.drainer.notifier
        if self._lifespan.has_opened or self not in notifier.server_events:
            return
        if self.serves_anew or self._lifespan.is_abandoned():
            # Else the stop of another server would wait for this one, until the hard deadline.
            self.process.leave(self)
            if not self.serves_anew:  # the `serve()` that follows has the same drainer
                notifier.start_failed(self)
            return
        if self.drainer.loop_monitor is not None:
            self.drainer.loop_monitor.beat()
        self._loop.call_later(TICK_PERIOD, self._tick_in_startup)

    def seconds_left(self) -> float:
        """Return the seconds until the server has to be gone, after a stop."""
        if self.finished or not self._lifespan.has_opened:
            return max(0.0, self._ends_by - monotonic())
        return self.drainer.whole_time_left()

    def waits_for(self, other: HookedServer) -> bool:
        """Return True if the lifespan.shutdown of this server waits for the end of *other*."""
        return self._lifespan.is_inside(other, other.server)

    def reset_at_exit(self) -> None:
        """Set responses that are sent in part to be reset at the end of the process.

        Safe from any thread.
        """
        self.adapter.connections.reset_at_exit()

    @property
    def gone(self) -> bool:
        """True if nothing of the server will run again."""
        served = self._serve_task is not None and self._serve_task.done()
        return self._loop.is_closed() or (self.finished and served)

    # What uvicorn calls

    async def _main_loop(self) -> None:
        if self.serves_anew:  # without a lifespan: the server is found at a request
            self._own.put_back()
            return await self.server.main_loop()
        self._serve_task = asyncio.current_task()
        self._open()
        self._signal_watch.look()
        try:
            await self._own.main_loop()
        except asyncio.CancelledError:
            # uvicorn would leave the listener open, and not run the lifespan's shutdown.
            self._cancellations += 1
            self.stop("serve() cancelled", lame_duck=False)
            with anyio.CancelScope(shield=True):
                await self.shutdown()
            self._end_serve_soon()
            raise

    def _end_serve_soon(self) -> None:
        """Set the right handlers of signals after a `serve()` that was cancelled.

        `Server.capture_signals` restores handlers then, and does not reverse `CapturedSignals`.
        """
        if self.in_main_thread and old_uvicorn.raises_signals_anew(self.server):
            self._loop.call_soon(self.process.serve_has_ended, self)

    def _open(self) -> None:
        self.adapter.start_listening()
        self._lifespan.opened()
        self.drainer.notifier.server_opened()

    async def _on_tick(self, counter: int) -> bool:
        self._signal_watch.tick()
        self.drainer.in_flight.tick()  # requests take their time from it, and ask no clock
        if self.drainer.phase is not Phase.SERVING:
            self._outside_work.look()
        return await self._own.on_tick(counter)

    async def shutdown(self, sockets: Sockets | None = None) -> None:
        """Drain, then let uvicorn shut down what is left. Replaces `Server.shutdown`.

        Re-entrant: a second caller waits for the same drain. If a caller is cancelled, the work in
        flight is cancelled as well. The first cancellation of `serve()` does not count: it is a
        stop like others.
        """
        if self.serves_anew:  # a signal came in its startup, before it was hooked
            return await self._own.shutdown(sockets)
        caller = asyncio.current_task()
        if caller in self.server.server_state.tasks:
            # The caller is a request: to wait for the end of all requests would never end.
            self.stop("shutdown()")
            return
        if self._shutdown_task is None:
            self._serve_task = self._serve_task or caller
            self._shutdown_task = asyncio.ensure_future(self._shut_down(sockets))
        try:
            await asyncio.shield(self._shutdown_task)
        except asyncio.CancelledError:
            if caller is self._serve_task:
                await self._outlast_cancellations(self._shutdown_task)
                self._end_serve_soon()
            # After the grace period the drain may have cancelled the caller itself: do not wait.
            elif not self._shutdown_task.done() and self.drainer.state.waiting:
                self.drainer.abort()
                with anyio.CancelScope(shield=True):
                    await asyncio.shield(self._shutdown_task)
            raise
        if caller is self._serve_task and not old_uvicorn.raises_signals_anew(self.server):
            old_uvicorn.end_serve(self)

    async def _outlast_cancellations(self, shutdown_task: asyncio.Task[None]) -> None:
        """Wait for the shutdown after `serve()` has been cancelled during it.

        vLLM's handler of SIGTERM cancels `serve()`. asyncio runs it a turn of the loop later than
        Python runs uvicorn's own handler, which may have begun the shutdown by then. So there may
        be one cancellation for each signal, which only repeats it. A further one cancels the work
        in flight: without a signal that is the second one.
        """
        while not shutdown_task.done():
            self._cancellations += 1
            if self._cancellations > max(1, len(self.process.captured)):
                self.drainer.abort()
            with contextlib.suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
                await asyncio.shield(shutdown_task)

    # The drain, and the end

    async def _shut_down(self, sockets: Sockets | None) -> None:
        server = self.server
        if not self._lifespan.has_opened:  # stopped in its startup: `main_loop` was left out
            self._open()
        if not self.drainer.state.stopping:
            code_asked = "should_exit" if server.should_exit else "shutdown()"
            # At its limit `Server.on_tick` ends the main loop and sets no flag.
            limited = not server.should_exit and server.config.limit_max_requests is not None
            self.stop("limit_max_requests" if limited else code_asked)
        self.process.set_deadline()
        if sockets is not None:
            self.adapter.share_sockets(stopped_by_signal=bool(self.process.captured))
        server.should_exit = True  # uvicorn's `on_tick` logs less then
        ticking = asyncio.ensure_future(self._tick())
        try:
            if await self._drain():
                self.adapter.cut_connections()
                self.process.work_is_over()
                await self._own.shutdown_with_nothing_left(sockets)
            else:  # what is in flight may finish, as it would without this package
                await self._own.shutdown(sockets)
        except asyncio.CancelledError:
            # Only the end of the loop does that. It cancels the requests, too: they get to answer.
            if tasks := server.server_state.tasks:
                await asyncio.wait(tasks, timeout=self.drainer.policy.cancel_period)
            raise
        finally:
            self.adapter.cut_connections()
            self._ends_by = monotonic() + self.drainer.whole_time_left()
            self.drainer.finish()
            await self.process.finish(self)
            ticking.cancel()

    async def _drain(self) -> bool:
        """Drain; return False, with the error in the log and in the report, if that fails."""
        drainer = self.drainer
        try:
            await drainer.drain(self.adapter)
        except Exception:
            log.failed("the drain failed; uvicorn shuts down by itself")
            age = drainer.state.elapsed(drainer.now())
            drainer.record.failed(drainer.state, StuckWork("task", "", "drain", age, "failed", ""))
            return False
        return True

    async def _tick(self) -> None:
        """Do what uvicorn's main loop does: call `on_tick`, and read the flags."""
        server, drainer = self.server, self.drainer
        for counter in itertools.count():
            try:
                await server.on_tick(counter)
            except Exception:
                log.failed("uvicorn's on_tick failed; the drain goes on")
            if server.force_exit and drainer.state.waiting:
                drainer.abort()
            if drainer.phase is not Phase.LAME_DUCK:
                await self.adapter.connections.sweep(drainer.time_left())
            if drainer.loop_monitor is not None:
                drainer.loop_monitor.beat()
            # For what gives no event, as an upgrade to a WebSocket that uvicorn refuses by itself:
            # another connection has taken the place of the one that is watched.
            drainer.notifier.wake()
            await asyncio.sleep(TICK_PERIOD)

    # For the code that runs the server

    @property
    def socket_file(self) -> SocketFile | None:
        """The file of its UNIX socket; None if it has not made one."""
        return self.adapter.socket_file

    def exit_code(self) -> int | None:
        """Return the exit code for the process; None while the drain is not over."""
        return self.drainer.report().exit_code if self.finished else None

    @property
    def failed(self) -> bool:
        """True if an unhandled exception has stopped the server."""
        return self.drainer.state.failed
