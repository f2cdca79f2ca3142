"""For the tests of your own service: a server that is started, told to stop, and looked at.

Needs the extra ``graceful-asgi[check]``. The fixture `server_process` is there once a root
``conftest.py`` says ``pytest_plugins = ["graceful_asgi.testing"]``; nothing is registered unasked.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING

import anyio

from ._check.errors import CheckError
from ._check.load.plan import LoadPlan
from ._check.result.verdict import Verdict, judge
from ._check.scenarios import together
from ._check.server.command import any_command, parse
from ._check.server.drain_log import read_report
from ._check.server.port import free_port
from ._check.server.process import TargetProcess
from ._check.trial import stop_under_load
from .errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from .report import DrainReport

__all__ = ["CheckError", "LoadPlan", "ServerProcess", "Verdict"]


class ServerProcess:
    """A server under test: an app (``"main:app --workers 2"``) or any command.

    A command is one string, taken apart as a shell would, or a list of arguments; ``{port}`` in it
    is replaced by a free port, which is in its environment as ``PORT``, too. `env` is added to this
    process's own environment. `start_period` is how many seconds the server has until it answers
    ``GET ready_path`` with any status.

    Use it as a context manager: whatever happens in the block, nothing that the server has started
    is left running after it. Not for use by two threads at once.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        ready_path: str = "/",
        start_period: float = 30.0,
    ) -> None:
        """Raises `CheckError` when `command` is none."""
        parsed = parse(command) if isinstance(command, str) else any_command(command)
        port = free_port()
        self._directory = tempfile.mkdtemp(prefix="graceful-asgi-")
        self._log: str | None = None
        self._process = TargetProcess(
            parsed.at(port),
            port=port,
            log_path=Path(self._directory, "server.log"),
            env={**os.environ, **(env or {}), "PORT": str(port)},
            cwd=None if cwd is None else Path(cwd),
            ready_path=ready_path,
            start_period=start_period,
        )

    # -- the process ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server, and return once it is ready. Raises `CheckError` with its log."""
        self._process.start()

    def signal(self, number: int = SIGTERM) -> None:
        """Send a signal to the process that was started, and to it alone, as a platform does."""
        self._process.signal(number)

    def wait(self, within: float) -> int:
        """Wait for the exit, and return the exit code (negative: the signal that ended it).

        Raises `TimeoutError` when it still runs after `within` seconds.
        """
        code = self._process.wait(within)
        if code is None:
            raise TimeoutError(f"the server still runs after {within:g} s; its log:\n{self.log}")
        return code

    def kill(self) -> None:
        """SIGKILL all that the server has started, and wait for its end. Idempotent."""
        self._process.kill()
        self._keep_log()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._keep_log()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where it is: ``http://127.0.0.1:PORT``."""
        return f"http://{self._process.host}:{self._process.port}"

    @property
    def port(self) -> int:
        """The port that was chosen for it."""
        return self._process.port

    @property
    def pid(self) -> int:
        """The process id. Raises `MisuseError` before `start`."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not exited."""
        return self._process.running

    @property
    def exit_code(self) -> int | None:
        """The exit code (negative: the signal that ended it), or None before the exit."""
        return self._process.exit_code

    @property
    def seconds_to_exit(self) -> float | None:
        """Seconds from the first signal to the exit; None while either is missing."""
        return self._process.seconds_to_exit

    # -- what it has said -----------------------------------------------------------------------

    @property
    def log(self) -> str:
        """What it has written to its standard output and error so far."""
        if self._log is not None:
            return self._log
        path = self._process.log_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def drain_report(self) -> DrainReport | None:
        """What its drain came to, read from its log; None: no drain, or none that has ended.

        Of several processes (``--workers``) the last one's. Times are as the log rounds them.
        """
        return read_report(self.log)

    # -- load -----------------------------------------------------------------------------------

    def stop_under_load(
        self,
        plan: LoadPlan | None = None,
        *,
        number: int = SIGTERM,
        signal_after: float = 1.0,
        deadline: float = 30.0,
    ) -> Verdict:
        """Put load on the running server, send the signal, and judge what its clients have seen.

        `plan` says who sends what (default: 50 keep-alive and 20 fresh-connection clients that ask
        for ``/``); each path that it names is one more scenario. The signal comes `signal_after`
        seconds into the load. `deadline` seconds after it the server is killed, if it still runs.

        Blocks until the end; in an async test call it in a thread. Raises `CheckError` when there
        is nothing to judge, and `MisuseError` when the server does not run.
        """
        if not self.running:
            raise MisuseError("stop_under_load() needs a server that runs: call start() first")
        if plan is None:
            plan = LoadPlan(keep_alive_clients=50, fresh_clients=20, single_after=signal_after / 2)

        async def run() -> Verdict:
            trial = await stop_under_load(
                self._process,
                plan,
                signal_after=signal_after,
                exit_period=deadline,
                number=number,
                scenarios=together,
            )
            return judge([trial])

        return anyio.run(run)

    def _keep_log(self) -> None:
        """Keep the text, and leave no file behind."""
        if self._log is None:
            self._log = self.log
            self._process.log_path.unlink(missing_ok=True)
            os.rmdir(self._directory)


if importlib.util.find_spec("pytest") is not None:
    import pytest

    __all__ += ["server_process"]

    @pytest.fixture
    def server_process() -> Iterator[Callable[..., ServerProcess]]:
        """Start servers (the arguments are those of `ServerProcess`); all end with the test."""
        with ExitStack() as stack:

            def start(command: str | Sequence[str], **options: object) -> ServerProcess:
                return stack.enter_context(ServerProcess(command, **options))  # type: ignore[arg-type]

            yield start
