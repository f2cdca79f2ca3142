"""Servers under test: a command in a process of its own, and uvicorn in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uvicorn import Config
from uvicorn import Server as UvicornServer

import graceful_asgi
from graceful_asgi._check.server.port import connects
from graceful_asgi._check.server.process import TargetProcess
from support.polling import PATIENCE, eventually, wait_until
from support.ports import free_port, listening_socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from graceful_asgi.types import Receive, Scope, Send

TESTS = Path(__file__).parents[1]
PACKAGE_ROOT = Path(graceful_asgi.__file__).parents[1]

MARGIN = 0.5
"""Seconds from the end of the last phase to the hard deadline."""
STARTS = 60.0
"""Seconds for a server to start on a slow machine that is busy with the start of others."""
ROOM = 3.0
"""Seconds that a busy machine may add before a test calls something late."""

Periods = dict[str, float]
SHORT: Periods = {"lame_duck": 0.5, "grace": 1.0, "cancel": 0.5, "cleanup": 1.5}
"""Seconds, where a test needs no others. A process that has drained has the cleanup period for its
exit, in which coverage saves what it has measured: on a busy machine that takes up to a second."""
ENOUGH: Final = 2.5
"""Seconds of a lame duck in which a busy machine gets to a request or two."""


class Server(TargetProcess):
    """A server command with the modules of the tests importable, and with periods of its own.

    It counts as started once its log has a match of `ready`, and once it answers ``GET
    ready_path``; with neither, at once. `env` may be changed until it is started. Without
    `measured`, coverage does not trace it: a tracer takes a third of the core from a server under
    load, and shifts the moments at which that is stopped.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        port: int = 0,
        env: dict[str, str] | None = None,
        ready: str | None = None,
        ready_path: str | None = None,
        periods: Periods | None = None,
        pass_fds: Sequence[int] = (),
        measured: bool = True,
    ) -> None:
        self.periods = {**SHORT, **(periods or {})}
        self._ready = ready
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GRACEFUL_", "APP_"))}
        self.env: Final = {
            **inherited,
            "PYTHONPATH": os.pathsep.join((str(PACKAGE_ROOT), str(TESTS))),
            "PYTHONUNBUFFERED": "1",
            **{f"GRACEFUL_{k.upper()}_PERIOD": str(v) for k, v in self.periods.items()},
            **(env or {}),
        }
        if not measured:
            self.env.pop("COVERAGE_PROCESS_CONFIG", None)  # from `patch = ["subprocess"]`
        super().__init__(
            command,
            port=port,
            log_path=directory / f"server-{time.monotonic_ns()}.log",
            env=self.env,
            cwd=directory,  # `python -m` looks for modules there first
            ready_path=ready_path,
            start_period=STARTS,
            pass_fds=pass_fds,
        )

    def set_period(self, name: str, seconds: float) -> None:
        """Change a period, before the server is started."""
        self.periods[name] = seconds
        self.env[f"GRACEFUL_{name.upper()}_PERIOD"] = str(seconds)

    def start(self) -> None:
        """Start the server; return once it is ready. What is left of a failed start is killed."""
        super().start()
        try:
            if self._ready is not None:
                self.wait_for(self._ready, within=STARTS)
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._show_log(error[0])

    async def __aexit__(self, *error: Any) -> None:
        await super().__aexit__(*error)
        self._show_log(error[0])

    def _show_log(self, error: type[BaseException] | None) -> None:
        if error is not None:
            sys.stderr.write(f"--- log of {' '.join(self.command)}\n{self.log}\n")

    # -- looking at it

    @property
    def log(self) -> str:
        """Everything it has printed and logged up to now."""
        return self.log_path.read_text(errors="replace")

    def wait_for(self, pattern: str, *, count: int = 1, within: float = PATIENCE) -> None:
        """Wait until the log has *count* matches of *pattern*."""

        def look() -> bool:
            running = self.running  # first: what it writes at its end is in the log by then
            if len(re.findall(pattern, self.log)) >= count:
                return True
            if not running:
                raise AssertionError(f"gone without {pattern!r} ({count}):\n{self.log}")
            return False

        wait_until(look, f"{pattern!r} in the log", within=within)

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers have started, and a connect is accepted.

        A worker logs the start of its app before it listens, and the parent never listens.
        """
        self.wait_for("Application startup complete", count=count)
        wait_until(lambda: connects(self.host, self.port), "a worker that listens")

    def count(self, text: str) -> int:
        """Return how often the log has *text*."""
        return self.log.count(text)

    @property
    def hard_deadline(self) -> float:
        """Seconds from the signal to the instant at which it has to be gone."""
        return sum(self.periods.values()) + MARGIN

    # -- acting on it

    def signal(self, number: int) -> None:
        """Send a signal. The time of its stop counts from here, unless it only changes workers."""
        super().signal(number)
        if number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            self._signalled_at = None

    def terminate(self) -> None:
        """Send SIGTERM and wait until the drain has begun."""
        self.signal(signal.SIGTERM)
        self.wait_for(r"drain \[\d+\]: lame duck \(SIGTERM\)")

    def signal_until_exit(self, number: int, within: float = 10) -> int:
        """Send the signal every 0.3 s until the exit; return the exit code.

        Python may handle a signal late that comes just before the main thread begins to wait, and
        for the kernel two signals may be one.
        """
        until = time.monotonic() + within
        while self.running and time.monotonic() < until:
            self.signal(number)
            self._exited.wait(0.3)
        return self.wait(max(0.0, until - time.monotonic()))

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit, by the hard deadline if nothing else is said; return the code."""
        if timeout is None:
            timeout = max(0.0, self.hard_deadline - self.seconds_since_signal()) + ROOM
        code = super().wait(timeout)
        if code is None:
            raise AssertionError(f"still there {timeout:.1f} s later:\n{self.log}")
        return code

    def seconds_since_signal(self) -> float:
        """Return the seconds since the first signal, or to the exit if it has come."""
        if self._signalled_at is None:
            return 0.0
        return self.seconds_to_exit or time.monotonic() - self._signalled_at


def uvicorn(
    directory: Path,
    *args: str,
    app: str = "e2e.app:app",
    http: str = "httptools",
    loop: str = "asyncio",
    env: dict[str, str] | None = None,
    ready: str | None = "Uvicorn running on",
    program: Sequence[str] = ("uvicorn",),
    pass_fds: Sequence[int] = (),
    measured: bool = True,
    **periods: float,
) -> Server:
    """Return a `uvicorn` command on a TCP port of its own, unless *args* say where it listens."""
    port = free_port()
    where = [] if {"--uds", "--fd"} & set(args) else ["--port", str(port)]
    command = [sys.executable, "-m", *program, app, "--http", http, "--loop", loop]
    return Server(
        [*command, *where, *args],
        directory,
        port=port,
        env=env,
        ready=ready,
        periods=periods,
        pass_fds=pass_fds,
        measured=measured,
    )


# uvicorn in the test's own loop. No middleware here.


class RecordingApp:
    """Answers every request, `/hold` once `release` is set; calls `look` with each scope first."""

    def __init__(self, look: Callable[[Scope], object] = lambda scope: None) -> None:
        self.look = look
        self.seen: list[tuple[str, object]] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((scope["type"], self.look(scope)))
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        if scope["path"] == "/hold":
            await self.release.wait()
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"seen"})


HOUR: Final = 3600.0


class LongPauses:
    """`asyncio` as uvicorn's server sees it: each of its pauses lasts an hour. To be patched in."""

    sleep: Callable[[float], Coroutine[Any, Any, None]] = staticmethod(
        lambda _: asyncio.sleep(HOUR)
    )

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def uvicorn_config(app: Any, **options: Any) -> Config:
    """Return a configuration without logging, on the newest WebSockets and the fastest parser."""
    given = {"log_config": None, "ws": "websockets-sansio", "http": "httptools", **options}
    return Config(app, **given)


@contextlib.asynccontextmanager
async def uvicorn_in_loop(
    app: Any, *, make: type[UvicornServer] = UvicornServer, **options: Any
) -> AsyncIterator[tuple[UvicornServer, int]]:
    """Serve *app* for the length of a block; yield the server and its port."""
    server, listener = make(uvicorn_config(app, **options)), listening_socket()
    port = listener.getsockname()[1]
    task = asyncio.ensure_future(server.serve([listener]))
    try:
        await eventually(lambda: server.started or task.done())
        yield server, port
    finally:
        server.should_exit = server.force_exit = True
        for connection in tuple(server.server_state.connections):
            connection.transport.abort()
        await asyncio.wait_for(task, PATIENCE)
