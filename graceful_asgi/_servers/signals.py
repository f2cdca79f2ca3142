"""`HostProcess`: turns signals into stops of the servers of a process, and ends the process.

`docs/explanation/architecture.md` has the way of a SIGTERM from uvicorn's handler to the exit, as
numbered steps. At the end of a drain come `HostProcess.work_is_over`, `HostProcess.finish` and
`HostProcess.signals_to_raise`, in this order.
"""

from __future__ import annotations

import os
import signal
import weakref
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from .._diagnostics.watchdog import FORCED, LOOK_PERIOD, MARGIN, Watchdog
from ..event_loop import running_asyncio_loop
from .finder import task_of
from .forked_child import DrainingFlag
from .process_exit import ProcessExit, is_default, shut_pools_down_first
from .signal_handlers import OriginalHandlers, is_pythons_own, server_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from .._core.runner import DrainRunner
    from ..report import Moment
    from .touchpoints import Server

QUICK_STOPS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name)
)
"""Ctrl+C, and the signal that gunicorn's parent sends for a quick stop. Windows has no SIGQUIT."""

RELOAD_PERIOD: Final = 0.8
"""Seconds for the process to end after its drain under `--reload`: a person has just saved a file,
and waits. On plain uvicorn SIGTERM kills the process there, whatever its threads do."""


class QuickStops:
    """Counts quick stops. For signal handlers: one may interrupt another.

    Ctrl+C reaches a gunicorn worker twice: the terminal sends SIGINT, the parent SIGQUIT, in either
    order.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._first: dict[int, int] = {}

    def is_new(self, signum: int) -> bool:
        """Count *signum*; return False for the echo of a Ctrl+C."""
        self._counts[signum] += 1
        return self._first.setdefault(self._counts[signum], signum) == signum


class CapturedSignals(list[int]):
    """`Server._captured_signals`: passes each signal on to `HostProcess` at once.

    uvicorn's handler appends to this list. So the drain begins in the handler, even with the event
    loop blocked, and uvicorn's handler stays where sse-starlette and others look for the server.
    """

    def __init__(self, hook: HookedServer) -> None:
        super().__init__()
        self._hook = hook
        self.unhandled: list[int] = []
        """The signals of a later `serve()`, for the hook that it gets, or for uvicorn."""

    def append(self, signum: int, /) -> None:
        """Note a signal. Runs in the signal handler."""
        super().append(signum)  # programs read in this list which signal has ended their server
        if self._hook.serves_anew:
            self.unhandled.append(signum)
        else:
            self._hook.process.on_signal(signum)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal in the place of `Server.handle_exit`.

        uvicorn has no handler for SIGQUIT. And at SIGINT its handler sets `force_exit` if
        `should_exit` is True, even if a SIGTERM or code has set that, and not a first Ctrl+C.
        """
        self.append(signum)
        self._hook.server.should_exit = True

    def __reversed__(self) -> Iterator[int]:
        # uvicorn leaves no other place to decide in. `Server.capture_signals` ends so, with the
        # handlers before its own back in their places:
        #     for captured_signal in reversed(self._captured_signals):
        #         signal.raise_signal(captured_signal)
        if self._hook.serves_anew:  # and has ended before it was hooked
            return reversed(self.unhandled)
        return iter(self._hook.process.signals_to_raise(self._hook))


def is_ours(handler: object) -> bool:
    """Return True if *handler* is `CapturedSignals.handle`, of any server."""
    return isinstance(getattr(handler, "__self__", None), CapturedSignals)


def _goes_on(server: Server) -> bool:
    """Return True if *server*, which has no hook, serves on the running loop."""
    has_hook = isinstance(getattr(server, "_captured_signals", None), CapturedSignals)
    return not has_hook and running_asyncio_loop() is not None and task_of(server) is not None


class HookedServer(Protocol):
    """A server of this process that drains: a `UvicornHook`."""

    process: HostProcess
    drainer: DrainRunner
    server: Server
    in_main_thread: bool
    captured: CapturedSignals
    finished: bool
    """True once its drain is over, the lifespan included."""

    @property
    def gone(self) -> bool:
        """True if nothing of it will run again."""

    @property
    def serves_anew(self) -> bool:
        """True if the program has called `serve()` again: this is the hook of the one before."""

    def stop(self, reason: str, *, lame_duck: bool = True) -> None:
        """Make it drain and end. Idempotent; safe in a signal handler."""

    def seconds_left(self) -> float:
        """Return the seconds until it has to be gone, after a stop."""

    def reset_at_exit(self) -> None:
        """Set responses that are sent in part to be reset at the end of the process."""

    def waits_for(self, other: HookedServer) -> bool:
        """Return True if its lifespan.shutdown waits for the end of *other*."""


def _ends_process(hook: HookedServer) -> bool:
    """Return True if the process ends with the drain of *hook* although no signal has come.

    After an exception that nobody handled. `Server.capture_signals` reverses `CapturedSignals` then
    as well, unless somebody else handles the signals.
    """
    failed = hook.drainer.state.failed and hook.in_main_thread
    return failed and server_of(signal.getsignal(signal.SIGTERM)) is hook.server


class HostProcess:
    """The process that servers run in: its signals, its hard deadline and its exit code.

    A platform knows one process, however many servers run in it. So a signal that one of them gets
    stops all of them at once, with one deadline and one exit code. If code stops a server, the
    other servers go on.

    There is one object in a process, as there is one handler of a signal. It has weak references to
    its servers, so that it does not wait for a server whose `serve()` was abandoned.
    """

    _current: ClassVar[HostProcess | None] = None

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._servers: list[weakref.ref[HookedServer]] = []
        self._watchdog = Watchdog(
            self._log_final_report, look=self._look, before_end=self._reset_answers
        )
        self._draining = DrainingFlag()
        self._original_handlers = OriginalHandlers(_goes_on)
        self._reset()

    def _reset(self) -> None:
        self.captured: list[int] = []
        """The signals that have come, in order."""
        self._exit_codes: list[int] = []
        self._exit: ProcessExit | None = None
        """The end of the process, once all drains are over; None before."""
        self._quick_stops = QuickStops()
        self._has_hurried = False
        """True once a Ctrl+C has come during the drain: the next one ends the process."""
        self._moment: Moment = "hard deadline"
        """The end of the process, as the last report names it."""

    @classmethod
    def current(cls) -> HostProcess:
        """Return the object of this process. A forked child has its own, and no server at first."""
        if cls._current is None or cls._current._pid != os.getpid():
            cls._current = cls()
        return cls._current

    def add(self, hook: HookedServer) -> None:
        """Add a server that starts. If a signal has come before it, stop it at once."""
        if self._exit is not None and self._exit.is_left_to_program:
            self._watchdog.disarm()  # the deadline was for the end of a process that goes on
            self._reset()
        self._servers.append(weakref.ref(hook, self._drop))
        if hook.in_main_thread:
            self._watchdog.start()  # not later: at a stop the system may have no thread to give
        if self.captured:
            hook.stop(signal.Signals(self.captured[0]).name, lame_duck=False)

    def leave(self, hook: HookedServer) -> None:
        """Forget a server that is over. Idempotent."""
        for ref in tuple(self._servers):
            if ref() is hook:
                self._drop(ref)

    def _drop(self, ref: weakref.ref[HookedServer]) -> None:
        if ref in self._servers:
            self._servers.remove(ref)
        if self._exit is None and not self.servers():
            self._watchdog.close()

    def servers(self) -> list[HookedServer]:
        """Return the servers that are starting, serving or stopping."""
        found = [ref() for ref in tuple(self._servers)]
        return [server for server in found if server is not None and not server.gone]

    # A signal

    def on_signal(self, signum: int) -> None:
        """Take a signal. Runs in the signal handler: no logging, no waiting, no plain lock."""
        if os.getpid() != self._pid:  # a child that the app has forked inherits the handler
            self._draining.end_child_unless_set(signum)
            return
        self.captured.append(signum)
        quick, servers = signum in QUICK_STOPS, self.servers()
        if quick and not self._quick_stops.is_new(signum):
            return
        if not quick or not all(server.drainer.state.stopping for server in servers):
            self._draining.set()
            for server in servers:
                # A quick stop skips the lame duck: a person is waiting, and no router.
                server.stop(signal.Signals(signum).name, lame_duck=not quick)
        elif not self._has_hurried:
            self._has_hurried = True
            for server in servers:
                server.drainer.abort()
            self.set_deadline()
        else:
            self._moment = "interrupt"
            self._watchdog.expire()

    def set_deadline(self) -> None:
        """Set the hard deadline to the moment by which every server has to be gone.

        Safe in a signal handler. No deadline is set if the process has to go on: for a program that
        has its servers in threads, or for another server. One that is set is never put off: a phase
        that a blocked event loop has begun late does not get its whole period.
        """
        servers = self.servers()
        if any(server.in_main_thread for server in servers) and all(
            server.drainer.state.stopping for server in servers
        ):
            seconds = max(server.seconds_left() for server in servers) + MARGIN
            self._watchdog.arm(min(seconds, self._watchdog.seconds_left()))

    @property
    def lacks_deadline(self) -> bool:
        """True if a hard deadline is set, and neither a thread nor `faulthandler` keeps it."""
        return self._watchdog.unguarded

    # The end

    def work_is_over(self) -> None:
        """Note that a server has nothing in flight any more: its lifespan may end its children."""
        if all(server.drainer.drained for server in self.servers()):
            self._draining.clear()
            self.set_deadline()  # the periods before may not have been needed

    async def finish(self, hook: HookedServer) -> None:
        """Note that *hook* is finished, and wait for the other servers that the signal has stopped.

        An exit of the process now would cut the work of a server in a daemon thread. The hard
        deadline bounds the wait. A server that an app runs in its lifespan is not to wait for the
        server of that app, which waits for it.
        """
        hook.finished = True
        shut_pools_down_first()
        if self.captured or _ends_process(hook):
            self._exit_codes.append(hook.drainer.report().exit_code)
        servers = self.servers()
        if all(server.finished for server in servers):
            if self._exit_codes and any(server.in_main_thread for server in servers):
                self.set_deadline()  # to what is left of the cleanup period
                if hook.server.config.reload and self._watchdog.seconds_left() > RELOAD_PERIOD:
                    self._watchdog.arm(RELOAD_PERIOD)
                # `serve()` has ended before, and the program has started another server.
                again = self._exit is not None and self._exit.begun
                clean = not any(self._exit_codes)
                self._exit = ProcessExit(self._watchdog, clean=clean, again=again)
            elif self._exit is None:  # else the process ends already, whoever has started late
                self._watchdog.disarm()  # no signal has asked the process to end
        hook.drainer.notifier.wake()
        while self.captured and (others := self._awaited_by(hook)):
            # Its end wakes this task. A server that fails to start, or is freed, wakes nobody.
            with others[0].drainer.notifier.listening() as wakeup:
                await wakeup.wait(LOOK_PERIOD)
        if not hook.in_main_thread:
            self.leave(hook)

    def _awaited_by(self, hook: HookedServer) -> list[HookedServer]:
        unfinished = [each for each in self.servers() if not each.finished]
        return [each for each in unfinished if not each.waits_for(hook)]

    def signals_to_raise(self, hook: HookedServer) -> Sequence[int]:
        """Return the signals that uvicorn has to raise again as *hook*'s `serve()` ends.

        If uvicorn raised SIGTERM again it would kill the process: no atexit, no `worker_exit` hook,
        an exit code that says "killed". So if nobody else handles SIGTERM, `serve()` just returns.
        A handler of the program gets its signal. Python's own handler gets SIGINT and raises
        `KeyboardInterrupt`. Call it on the main thread.

        Raises:
            SystemExit: the drain was forced, or an exception that nobody handled was the cause. Or
                the process was ending already, and has started another server.
        """
        if self._exit is None and self.captured and self.servers() == [hook]:
            # Stopped in its startup: uvicorn before 0.41 does not call `shutdown` then. Or it has
            # waited for a server whose startup has ended without a drain.
            self._exit = ProcessExit(self._watchdog, clean=not any(self._exit_codes))
        others = self.serve_has_ended(hook)
        if self._exit is None:
            return ()
        # Each signal once, the last first: in this order uvicorn raises them.
        handlers = {signum: signal.getsignal(signum) for signum in reversed(self.captured)}
        # The handler of a gunicorn worker's SIGQUIT is one of ours: uvicorn restores none there.
        handled = [
            signum
            for signum, handler in handlers.items()
            if not is_default(handler) and not is_ours(handler)
        ]
        # A shell script starts `command &` with SIGINT ignored: then nobody handles it either.
        if not all(
            handlers[signum] is signal.SIG_IGN or is_pythons_own(handlers[signum])
            for signum in handled
        ):
            if others:
                return ()  # the last server to end raises it
            self._watchdog.close()  # the program decides how it ends
            self._reset()
            return handled
        # A program that starts its server over and over (`while True: uvicorn.run(app)`) would
        # never end. On plain uvicorn SIGTERM ends it.
        if not self._exit.clean or self._exit.again:
            self._exit.begin(left_to_program=False)
            raise SystemExit(0 if self._exit.clean else FORCED)
        if not others:
            self._exit.begin(left_to_program=bool(handled))
            return handled
        return ()

    def serve_has_ended(self, hook: HookedServer) -> list[HookedServer]:
        """Forget *hook*, and set the right handlers of signals: uvicorn has restored some.

        Call it on the main thread. Return the servers that go on there.
        """
        self.leave(hook)
        others = [server for server in self.servers() if server.in_main_thread]
        self._original_handlers.put_back(but_for=[server.server for server in others])
        return others

    # In the watchdog's thread

    def _look(self) -> None:
        for server in self.servers():
            if server.drainer.lifespan is None:  # in its startup nothing waits to be cancelled
                server.drainer.stuck.report_if_blocked()
        if self._exit is None:
            # Code has stopped the last server, and nothing has called `leave`: this program handles
            # the signals itself, as vLLM's does, and lives on.
            if not self._watchdog.armed and all(each.finished for each in self.servers()):
                self._watchdog.close()
        elif self._exit.begun:
            self._exit.look()
        elif not self.servers():
            # `serve()` has ended, and uvicorn has raised nothing: the program takes the signals,
            # as vLLM's does (its `capture_signals` does nothing), and decides how it ends.
            self._reset()
            self._watchdog.close()

    def _reset_answers(self) -> None:
        # The end of the process closes each connection in order, as a complete answer without a
        # length does. A loop that is blocked has reset none of them when the grace period ended.
        for server in self.servers():
            server.reset_at_exit()

    def _log_final_report(self) -> None:
        if self._exit is not None:
            self._exit.log_final_report()
            return
        for server in self.servers():
            if not server.finished:
                server.drainer.stuck.report_at_end(self._moment)
