"""Hooks one uvicorn `Server` instance: every way of stopping it becomes a drain.

Wrapped on the instance are `shutdown` (which every way of stopping comes to), `main_loop` (where
`serve()` is cancelled), its lifespan's `shutdown` (which may hang), and the list of captured
signals (where a signal is first heard, and where uvicorn would die by it in the end). No class is
patched, nothing outlives the server.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from .. import log
from .._diagnostics.loop_monitor import LoopMonitor
from .._diagnostics.trail import where
from .._diagnostics.watchdog import MARGIN as MARGIN
from .._diagnostics.watchdog import Watchdog
from ..phase import Phase
from ..report import StuckWork
from .adapter import UvicornAdapter
from .quick_stops import QUICK_STOPS, QuickStops
from .signals import CapturedSignals, check_signal_handler, handles

if TYPE_CHECKING:
    from .._core.runner import DrainRunner
    from ..report import Moment
    from ..types import Scope
    from .touchpoints import Server, Sockets

TICK_PERIOD: Final = 0.1
"""uvicorn's own: it keeps the Date header and gunicorn's heartbeat going, and sees flags set."""

_ATTRIBUTE: Final = "_graceful_asgi_hook"


class UvicornHook:
    """One uvicorn server and its drain. Lives on the server's event loop."""

    def __init__(self, server: Server, drainer: DrainRunner) -> None:
        self.drainer = drainer
        self._server = server
        self._adapter = UvicornAdapter(server)
        self._watchdog = Watchdog(self._log_final_report, look=drainer.stuck.report_if_blocked)
        # A server in a thread of a larger program must not take the program with it.
        self._owns_process = threading.current_thread() is threading.main_thread()
        self._pid = os.getpid()
        self._quick_stops = QuickStops()
        self._has_hurried = False
        self._interrupted_again = False
        self._shutdown_task: asyncio.Task[None] | None = None
        self._lifespan_task: asyncio.Task[Any] | None = None

    @staticmethod
    def of(server: object) -> UvicornHook | None:
        """Return what has hooked *server*, if anything has."""
        return getattr(server, _ATTRIBUTE, None)

    def install(self, scope: Scope) -> None:
        """Hook the server. From here on it drains, whichever way it is told to stop."""
        server = self._server
        setattr(server, _ATTRIBUTE, self)
        self._uvicorn_shutdown, server.shutdown = server.shutdown, self.shutdown
        self._uvicorn_main_loop, server.main_loop = server.main_loop, self._main_loop
        self._uvicorn_cleanup, server.lifespan.shutdown = server.lifespan.shutdown, self._cleanup
        captured = list(getattr(server, "_captured_signals", ()))
        server._captured_signals = CapturedSignals(self, server)
        if scope["type"] == "lifespan":
            self._lifespan_task = asyncio.current_task()
        log.follow("uvicorn.error")
        log.start()
        drainer, name = self.drainer, f"{type(server).__module__}.{type(server).__qualname__}"
        log.hooked(name, drainer.policy, drainer.context.origins)
        drainer.loop_monitor = LoopMonitor(drainer.now)
        drainer.on_stop.append(self._on_stop)
        drainer.on_failure.append(partial(setattr, drainer, "loop_monitor", None))
        drainer.on_failure.append(partial(drainer.on_stop.remove, self._on_stop))
        drainer.on_failure.append(log.stop)
        if drainer.stopping:  # by whatever else has it
            self._on_stop()
        if self._lifespan_task is None:  # in a request: `main_loop` is under way
            drainer.note_open()
        for signum in captured:  # it was told to stop before it had got as far as this
            server._captured_signals.append(signum)

    # Triggers: a signal, or `shutdown`, which is where the others end up

    def on_signal(self, signum: int) -> None:
        """Take a signal. Runs in the signal handler: no logging, no waiting, no plain lock."""
        if os.getpid() != self._pid:  # a child that the app has forked has nothing to drain
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
            return
        if signum not in QUICK_STOPS:
            self.drainer.stop(signal.Signals(signum).name)
        elif self._quick_stops.is_new(signum):
            self._hurry(signal.Signals(signum).name)

    def _hurry(self, reason: str) -> None:
        if not self.drainer.stopping:
            # Somebody is waiting, and there is no router that needs time to notice.
            self.drainer.stop(reason, lame_duck=False)
        elif not self._has_hurried:
            self._has_hurried = True
            self.drainer.abort()
        else:
            self._interrupted_again = True
            self._watchdog.expire()

    def _log_final_report(self) -> None:
        moment: Moment = "interrupt" if self._interrupted_again else "hard deadline"
        self.drainer.stuck.report_at_end(moment)

    def _on_stop(self) -> None:
        """See to it that the server ends, whoever has stopped the drainer, and wherever."""
        if self.drainer.loop_monitor is not None:
            self.drainer.loop_monitor.expect()
        if self._server.config.reload:  # somebody has just saved a file
            self.drainer.end_lame_duck()
        if self._owns_process:
            self._watchdog.arm(self.drainer.whole_time_left() + MARGIN)
        # Not in the midst of uvicorn's signal handler: it takes the flag for that of a stop before.
        self.drainer.notifier.post(partial(setattr, self._server, "should_exit", True))

    async def _main_loop(self) -> None:
        if self._owns_process:
            check_signal_handler(self._server)
        self._adapter.start_listening()
        self.drainer.note_open()
        try:
            await self._uvicorn_main_loop()
        except asyncio.CancelledError:
            # uvicorn would leave the listener open, and the lifespan without its shutdown.
            self.drainer.stop("serve() cancelled", lame_duck=False)
            with anyio.CancelScope(shield=True):
                await self.shutdown()
            raise

    async def shutdown(self, sockets: Sockets | None = None) -> None:
        """Drain, then let uvicorn shut down what is left. In place of `Server.shutdown`.

        Re-entrant: a second caller waits for the one drain. A caller that is cancelled will not
        wait: what is in flight is cancelled, too.
        """
        if self._shutdown_task is None:
            self._shutdown_task = asyncio.ensure_future(self._shut_down(sockets))
        try:
            await asyncio.shield(self._shutdown_task)
        except asyncio.CancelledError:
            if not self._shutdown_task.done():
                self.drainer.abort()
                with anyio.CancelScope(shield=True):
                    await asyncio.shield(self._shutdown_task)
            raise

    # The drain, and the end

    async def _shut_down(self, sockets: Sockets | None) -> None:
        server = self._server
        if not self.drainer.stopping:
            code_asked = "should_exit" if server.should_exit else "shutdown()"
            limited = not server.should_exit and server.config.limit_max_requests is not None
            self.drainer.stop("limit_max_requests" if limited else code_asked)
        if sockets is not None:
            self._adapter.share_sockets(stopped_by_signal=bool(server._captured_signals))
        server.should_exit = True  # sse-starlette reads it; `on_tick` says less with it
        ticking = asyncio.ensure_future(self._tick())
        try:
            await self.drainer.drain(self._adapter)
        except Exception:
            log.failed("the drain failed; uvicorn shuts down by itself")
        finally:
            self._adapter.cut_connections()
        try:
            await self._finish_uvicorn(sockets)
        finally:
            ticking.cancel()
            self.drainer.finish()
            self.drainer.loop_monitor = None
            self.drainer.on_stop.remove(self._on_stop)
            log.stop()
            if not server._captured_signals and not self._ends_by_failure():
                self._watchdog.disarm()  # no signal has asked the process to end

    async def _tick(self) -> None:
        """Go on with what uvicorn's main loop does, and look at the flags it looks at."""
        server, drainer = self._server, self.drainer
        for counter in itertools.count():
            try:
                await server.on_tick(counter)
            except Exception:
                log.failed("uvicorn's on_tick failed; the drain goes on")
            if server.force_exit and drainer.waiting:
                drainer.abort()
            if drainer.phase is not Phase.LAME_DUCK:
                self._adapter.sweep()
            if drainer.loop_monitor is not None:
                drainer.loop_monitor.beat()
            drainer.notifier.wake()
            await asyncio.sleep(TICK_PERIOD)

    async def _finish_uvicorn(self, sockets: Sockets | None) -> None:
        """Have uvicorn shut down a server that has nothing left: it runs lifespan.shutdown."""
        server, state = self._server, self._server.server_state
        # What is still there has had its time: a handler that swallows its cancellation, silent
        # TLS handshakes (Python 3.12 and later wait for those), a connection that cannot close
        # (which uvicorn's loop over them does not survive).
        kept = server.servers, state.connections, state.tasks
        server.servers, state.connections, state.tasks = [], set(), set()
        server.force_exit = False  # or uvicorn would leave lifespan.shutdown out
        try:
            await (self._uvicorn_shutdown() if sockets is None else self._uvicorn_shutdown(sockets))
        finally:
            server.servers, state.connections, state.tasks = kept

    async def _cleanup(self) -> None:
        """Bound `lifespan.shutdown` by the cleanup period. In place of `LifespanOn.shutdown`."""
        with anyio.move_on_after(self.drainer.time_left()) as cancel_scope:
            await self._uvicorn_cleanup()
        if cancel_scope.cancelled_caught:
            task = self._lifespan_task
            self.drainer.record.overran(
                self.drainer.state,
                StuckWork(
                    kind="lifespan",
                    method="",
                    path="lifespan.shutdown",
                    age=self.drainer.policy.cleanup_period,
                    phase="running",
                    where=where(None if task is None else task.get_coro()),
                ),
            )

    def exit_code(self) -> int | None:
        """Return what the process should exit with; None while the drain is not over."""
        task = self._shutdown_task
        if task is None or not task.done():
            return None
        return self.drainer.report().exit_code

    @property
    def failed(self) -> bool:
        """Whether an exception that nobody handled has stopped the server."""
        return self.drainer.report().failed

    def _ends_by_failure(self) -> bool:
        """Say whether the process is going to end by that: `CapturedSignals` sees to it."""
        return self.failed and self._owns_process and handles(self._server, signal.SIGTERM)

    def release(self) -> None:
        """Let the process live: whoever handles its signals decides about it."""
        self._watchdog.disarm()
