"""One server under test as a subprocess: start it, signal it, time its exit, leave nothing behind.

Knows no HTTP beyond "does it answer", and nothing of load or verdicts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from ...errors import MisuseError
from ..errors import ServerExitedError, ServerStartError
from .port import answers, why_no_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

_PROBE_INTERVAL: Final = 0.02
_KILL_PERIOD: Final = 5.0
_TAIL_LINES: Final = 20


class TargetProcess:
    """A server command, run in a process group of its own, its output in `log_path`.

    `env` is the whole environment (None: this process's own). `start_period` is how many seconds
    the server has to answer ``GET ready_path`` with any status (None: nothing is waited for).

    Use it as a context manager, plain or async; either way the whole group is gone afterwards. One
    thread waits for the exit and notes its time, which is exact however late it is asked for. All
    synchronous methods are safe from any thread once `start` has returned.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready_path: str | None = "/",
        start_period: float = 20.0,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.command: Final = tuple(command)
        self.host: Final = "127.0.0.1"
        self.port: Final = port
        self.log_path: Final = log_path
        self._env = env
        self._cwd = cwd
        self._ready_path = ready_path
        self._start_period = start_period
        self._pass_fds = tuple(pass_fds)
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = threading.Event()
        self._exited_at: float | None = None
        self._signalled_at: float | None = None
        self._lock = threading.Lock()
        self._given_up = False

    # -- start and end --------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server and return once it answers. Blocks for up to `start_period` seconds.

        Raises `ServerStartError` when there is no such command, when it exits early or when it
        never answers (it is killed then), and `MisuseError` when called twice.
        """
        if self._process is not None:
            raise MisuseError("TargetProcess.start() was called twice; make a new TargetProcess")
        try:
            self._spawn()
            if self._ready_path is not None:
                self._wait_ready(self._ready_path)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL the whole process group and wait for the exit. Idempotent; the last resort.

        A start that is under way in another thread ends what it has started, too.
        """
        with self._lock:
            self._given_up = True
            if self._process is None:
                return
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self._kill_group(self._process)
                break
            except KeyboardInterrupt as error:
                # A second Ctrl+C, while the first one ends what was started: this is the last step
                # that can do so, and it takes no time.
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _kill_group(self, process: subprocess.Popen[bytes]) -> None:
        # Also when the parent has gone: its workers may have outlived it in the same group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if not self._exited.wait(_KILL_PERIOD):
            raise RuntimeError(f"{self._name} is still there {_KILL_PERIOD} s after SIGKILL")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    async def __aenter__(self) -> Self:
        try:
            await to_thread.run_sync(self.start, abandon_on_cancel=True)
        except BaseException:
            # Cancelled: the abandoned thread sees the process die, and ends.
            self.kill()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        # Blocks for milliseconds, and on purpose: an await here could be cancelled.
        self.kill()

    def signal(self, number: int) -> None:
        """Send a signal to the server (its parent process only, as a platform would).

        Raises `ServerExitedError` when it had exited before the first signal.
        """
        if self._process is None:
            raise MisuseError("signal() before start()")
        if self._signalled_at is None:
            self.check_running()
            self._signalled_at = time.monotonic()
        self._process.send_signal(number)

    def check_running(self) -> None:
        """Raise `ServerExitedError`, with the end of its log, if it has exited."""
        if not self.running:
            raise ServerExitedError(self._with_log(f"exited with code {self.exit_code}"))

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds (None: for ever) for the exit.

        Returns the exit code (negative: the signal that ended it), or None if it still runs.
        Raises `MisuseError` before `start`.
        """
        if self._process is None:
            raise MisuseError("wait() before start()")
        self._exited.wait(timeout)
        return self.exit_code

    async def wait_exit(self) -> None:
        """Wait for the exit without blocking the event loop. May be cancelled at any time."""
        await to_thread.run_sync(self._exited.wait, abandon_on_cancel=True)

    @property
    def pid(self) -> int:
        """The process id of the server's parent process. `MisuseError` before `start`."""
        if self._process is None:
            raise MisuseError("no pid before start()")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True once the server has been started, until it has exited."""
        return self._process is not None and not self._exited.is_set()

    @property
    def exit_code(self) -> int | None:
        """The exit code (negative: the signal that ended it), or None before the exit."""
        return self._process.returncode if self._process and self._exited.is_set() else None

    def left_running(self) -> int:
        """Return how many processes of its group run besides it (0 without `/proc`)."""
        return sum(state != "Z" for pid, state in _members(self.pid) if pid != self.pid)

    @property
    def seconds_to_exit(self) -> float | None:
        """Seconds (monotonic) from the first signal to the exit; None while either is missing."""
        if self._signalled_at is None or self._exited_at is None:
            return None
        return self._exited_at - self._signalled_at

    def log_tail(self) -> str:
        """Return the last lines of the server's output."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        return ""

    # -- inside ---------------------------------------------------------------------------------

    def _spawn(self) -> None:
        with self.log_path.open("wb") as log:
            try:
                process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    cwd=self._cwd,
                    start_new_session=True,
                    pass_fds=self._pass_fds,
                )
            except OSError as error:
                raise ServerStartError(f"{self._name} could not be started: {error}") from error
        with self._lock:
            self._process = process
            given_up = self._given_up
        threading.Thread(target=self._reap, args=(process,), daemon=True).start()
        if given_up:
            raise ServerStartError(f"{self._name} was given up while it was being started")

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._exited_at = time.monotonic()
        self._exited.set()

    def _wait_ready(self, path: str) -> None:
        deadline = time.monotonic() + self._start_period
        while True:
            left = deadline - time.monotonic()
            answered = left > 0 and answers(self.host, self.port, path, within=left)
            if not self.running:  # looked at second: a stranger on the same port may have answered
                raise ServerStartError(self._with_log(f"exited early, code {self.exit_code}"))
            if answered:
                return
            if left <= 0:
                why = why_no_answer(self.host, self.port, path, self._start_period)
                raise ServerStartError(self._with_log(why))
            # Polled: the kernel reports to no other process that a port has been opened. An exit of
            # the server ends the wait at once.
            self._exited.wait(_PROBE_INTERVAL)

    @property
    def _name(self) -> str:
        return shlex.join(self.command)

    def _with_log(self, problem: str) -> str:
        return f"{self._name} {problem}; its log ends:\n{self.log_tail() or '(no output)'}"


def _members(group: int) -> Iterator[tuple[int, str]]:
    """Return the process ids in the group, each with its state (proc(5): Z is a zombie)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            # The name stands in parentheses and may hold anything, a parenthesis too.
            state, _, found, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(found) == group:
                yield int(stat.parent.name), state
