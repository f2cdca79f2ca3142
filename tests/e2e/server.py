"""A server subprocess: start it, signal it, read its log, and leave nothing of it behind.

`graceful_asgi._check.process` has one as well, for load on a TCP port that answers; here servers
are also told to stop before they answer, speak TLS, listen on UNIX sockets or are programs.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from support.ports import free_port

import graceful_asgi

from .waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

TESTS = Path(__file__).parents[1]
PACKAGE_ROOT = Path(graceful_asgi.__file__).parents[1]

MARGIN = 0.5
"""Seconds from the end of the last phase to the hard deadline."""
ROOM = 3.0
"""Seconds that a busy machine may add before a test calls something late."""

Periods = dict[str, float]
SHORT: Periods = {"lame_duck": 0.5, "grace": 1.0, "cancel": 0.5, "cleanup": 0.5}


class Server:
    """One server command in a process group of its own, with `e2e.app` importable."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        port: int = 0,
        env: dict[str, str] | None = None,
        ready: str | None = None,
        periods: Periods | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.port = port
        self.periods = {**SHORT, **(periods or {})}
        self.log_path = directory / f"server-{time.monotonic_ns()}.log"
        self._command = list(command)
        self._ready = ready
        self._pass_fds = tuple(pass_fds)
        self._directory = directory
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GRACEFUL_", "APP_"))}
        self._env = {
            **inherited,
            "PYTHONPATH": os.pathsep.join((str(PACKAGE_ROOT), str(TESTS))),
            "PYTHONUNBUFFERED": "1",
            **{f"GRACEFUL_{k.upper()}_PERIOD": str(v) for k, v in self.periods.items()},
            **(env or {}),
        }
        self._signalled_at = 0.0

    def forget_periods(self, *names: str) -> None:
        """Leave those periods to the app, before it is started."""
        for name in names:
            del self._env[f"GRACEFUL_{name}_PERIOD"]

    def __enter__(self) -> Self:
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._directory,  # `python -m` looks for modules there first
                start_new_session=True,
                pass_fds=self._pass_fds,
            )
        try:
            if self._ready is not None:
                self.wait_for(self._ready)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill()
        if exc_type is not None:
            sys.stderr.write(f"--- log of {' '.join(self._command)}\n{self.log}\n")

    def _kill(self) -> None:
        # The whole group: workers may have outlived their parent.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    # -- looking at it

    @property
    def log(self) -> str:
        """Everything it has printed and logged up to now."""
        return self.log_path.read_text(errors="replace")

    def wait_for(self, pattern: str, *, count: int = 1, within: float = PATIENCE) -> None:
        """Wait until the log has *count* matches of *pattern*."""

        def look() -> bool:
            if len(re.findall(pattern, self.log)) >= count:
                return True
            if self.process.poll() is not None and len(re.findall(pattern, self.log)) < count:
                raise AssertionError(f"gone without {pattern!r} ({count}):\n{self.log}")
            return False

        eventually(look, f"{pattern!r} in the log", within=within)

    def count(self, text: str) -> int:
        """Say how often the log has *text*."""
        return self.log.count(text)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def hard_deadline(self) -> float:
        """Seconds from the signal to the instant at which it has to be gone."""
        return sum(self.periods.values()) + MARGIN

    # -- acting on it

    def signal(self, number: int) -> None:
        """Send a signal to the parent process only, as a platform would."""
        self._signalled_at = self._signalled_at or time.monotonic()
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM and wait until the drain has begun."""
        self.signal(signal.SIGTERM)
        self.wait_for(r"drain \[\d+\]: lame duck \(SIGTERM\)")

    def exit_code(self, *, within: float | None = None) -> int:
        """Wait for the exit, by the hard deadline if nothing else is said; return the code."""
        if within is None:
            left = self._signalled_at + self.hard_deadline - time.monotonic()
            within = max(0.0, left) + ROOM
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there {within:.1f} s later:\n{self.log}") from None

    def seconds_since_signal(self) -> float:
        return time.monotonic() - self._signalled_at


def uvicorn(
    directory: Path,
    *args: str,
    app: str = "e2e.app:app",
    http: str = "httptools",
    loop: str = "asyncio",
    env: dict[str, str] | None = None,
    ready: str | None = "Uvicorn running on",
    program: Sequence[str] = ("uvicorn",),
    **periods: float,
) -> Server:
    """A `uvicorn` command line on a TCP port of its own, unless *args* say where it listens."""
    port = free_port()
    where = [] if "--uds" in args else ["--port", str(port)]
    command = [sys.executable, "-m", *program, app, "--http", http, "--loop", loop]
    return Server(
        [*command, *where, *args], directory, port=port, env=env, ready=ready, periods=periods
    )
