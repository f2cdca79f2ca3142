"""Servers for the tests of your own service: started, told to stop, and looked at.

`ServerProcess` is the whole server as a process of its own; it needs the extra
``graceful-asgi[check]``. `ThreadedServer` is an app on uvicorn in a thread of the test's process.

This is a pytest plugin by entry point: the fixtures `server_process` and `threaded_server` are
there once the package is installed. pytest imports this module when it starts, so nothing is
imported here that is not in the standard library; what it takes to run a server comes later.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import uvicorn
    from typing_extensions import Self

    from ._check.client.plan import LoadPlan
    from ._check.errors import CheckError
    from ._check.result.verdict import Verdict
    from .report import DrainReport

__all__ = ["CheckError", "LoadPlan", "ServerProcess", "ThreadedServer", "Verdict"]

_LOOK_INTERVAL: Final = 0.005
_STOP_PERIOD: Final = 0.3
"""Seconds that a `ThreadedServer` waits for what is in flight, and again for what was cancelled."""
_GIVE_UP_PERIOD: Final = 5.0
_MODULES: Final = {
    "CheckError": "_check.errors",
    "LoadPlan": "_check.client.plan",
    "Verdict": "_check.result.verdict",
}


def __getattr__(name: str) -> object:
    """Import a public class when it is asked for (PEP 562). pytest itself does not ask for one."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __package__), name)


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
        """Choose a port, and start nothing yet.

        Raises `CheckError` if *command* is empty, or gives uvicorn what is chosen here (`--port`).
        """
        from ._check.server.command import any_command, parse
        from ._check.server.port import free_port
        from ._check.server.process import TargetProcess

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
        """Start the server, and return once it is ready.

        Raises `CheckError` with its log if it exits or does not answer within `start_period`
        seconds, and `MisuseError` when called twice.
        """
        self._process.start()

    def signal(self, number: int = SIGTERM) -> None:
        """Send a signal to the process that was started, and to it alone, as a platform does.

        Raises `CheckError` if it has exited before its first signal, and `MisuseError` before
        `start`.
        """
        self._process.signal(number)

    def wait(self, within: float) -> int:
        """Wait for the exit, and return the exit code (negative: the signal that ended it).

        Raises `TimeoutError` when it still runs after `within` seconds, and `MisuseError` before
        `start`.
        """
        code = self._process.wait(within)
        if code is None:
            raise TimeoutError(f"the server still runs after {within:g} s; its log:\n{self.log}")
        return code

    def kill(self) -> None:
        """Kill all that the server has started, and wait for its end. Idempotent."""
        self._process.kill()
        self._keep_log()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._keep_log()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The server's address: ``http://127.0.0.1:PORT``."""
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
        """True while the process runs."""
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
        """The standard output and error of the server so far."""
        if self._log is not None:
            return self._log
        path = self._process.log_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def drain_report(self) -> DrainReport | None:
        """The report of its drain, read from its log; None if no drain has ended.

        With several processes (``--workers``) it is the last one's. Times are as the log rounds
        them.
        """
        from ._check.server.drain_log import read_report

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
        import anyio

        from .errors import MisuseError, naming_extra

        with naming_extra("check", "stop_under_load()"):
            from ._check.client.plan import LoadPlan
            from ._check.result.verdict import judge
            from ._check.scenarios import together
            from ._check.trial import stop_under_load

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
                scenarios=together(plan),
            )
            return judge([trial])

        return anyio.run(run)

    def _keep_log(self) -> None:
        """Keep the text, and leave no file behind."""
        if self._log is None:
            self._log = self.log
            self._process.log_path.unlink(missing_ok=True)
            os.rmdir(self._directory)


class ThreadedServer:
    """An app on uvicorn in a thread of this process, for tests that need a real port.

    `app` is an ASGI app, and `config` is passed on to `uvicorn.Config`. Use it as a context
    manager; the server is on a free port of 127.0.0.1.

    It ends in well under a second, whatever periods the app's policy has: the lame duck is skipped,
    and what is in flight after 0.3 s is cancelled. So a test may leave a response or an event
    stream unread. To test how the app drains use `ServerProcess`.
    """

    def __init__(self, app: Any, **config: Any) -> None:
        self._app = app
        self._config = {"log_level": "warning", **config}
        self._socket: socket.socket | None = None
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start it, and return once it serves.

        Raises `CheckError` when it does not start, and `MisuseError` when called twice.
        """
        from ._check.errors import ServerStartError
        from .errors import MisuseError, naming_extra

        with naming_extra("run", "ThreadedServer"):
            import uvicorn

        if self._thread is not None:
            raise MisuseError("ThreadedServer.start() was called twice; make a new one")
        sock = self._socket = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self._port = sock.getsockname()[1]
        server = self._server = uvicorn.Server(uvicorn.Config(self._app, **self._config))
        self._thread = threading.Thread(
            target=self._run, args=(server, sock), name="ThreadedServer", daemon=True
        )
        self._thread.start()
        # Polled, because uvicorn only sets a flag.
        while not server.started:
            if not self._thread.is_alive():
                sock.close()
                raise ServerStartError(
                    f"the app did not start: {self._error or 'see the log of uvicorn.error'}"
                ) from self._error
            time.sleep(_LOOK_INTERVAL)

    def stop(self) -> None:
        """Stop it, and return when it has ended. Idempotent.

        Raises `TimeoutError` when it still runs 5 s after the order to exit at once: something in
        the app swallows its cancellation, or blocks the event loop.
        """
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        from ._servers.uvicorn import UvicornHook

        # Not by `Server.handle_exit`: a signal stops the whole process, which would end at the hard
        # deadline. `should_exit` stops this one server.
        hook = UvicornHook.of(server)
        if hook is not None:
            hook.drainer.stop("ThreadedServer.stop()", lame_duck=False)
        server.should_exit = True
        thread.join(_STOP_PERIOD)
        if thread.is_alive() and hook is not None:
            hook.drainer.abort()
            thread.join(_STOP_PERIOD)
        if thread.is_alive():
            # uvicorn stops waiting for its connections then, but it cancels nothing by itself.
            server.force_exit = True
            thread.join(_GIVE_UP_PERIOD)
        if thread.is_alive():
            raise TimeoutError(f"the server's thread still runs; {self.url}")
        if self._socket is not None:
            self._socket.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Return the port. Raises `MisuseError` before `start`."""
        if not self._port:
            from .errors import MisuseError

            raise MisuseError("no port before start()")
        return self._port

    @property
    def url(self) -> str:
        """Return where it is: ``http://127.0.0.1:PORT``. Raises `MisuseError` before `start`."""
        return f"http://127.0.0.1:{self.port}"

    def _run(self, server: uvicorn.Server, sock: socket.socket) -> None:
        try:
            server.run(sockets=[sock])
        except BaseException as error:
            # SystemExit as well: uvicorn raises it if the start fails, and a forced drain ends with
            # it. In a thread nobody would see either.
            self._error = error


if importlib.util.find_spec("pytest") is not None:
    import pytest

    __all__ += ["server_process", "threaded_server"]

    @pytest.fixture
    def server_process() -> Iterator[Callable[..., ServerProcess]]:
        """Start servers (the arguments are those of `ServerProcess`); all end with the test."""
        with ExitStack() as stack:

            def start(command: str | Sequence[str], **options: Any) -> ServerProcess:
                return stack.enter_context(ServerProcess(command, **options))

            yield start

    @pytest.fixture
    def threaded_server() -> Iterator[Callable[..., ThreadedServer]]:
        """Serve apps in threads (the arguments are those of `ThreadedServer`)."""
        with ExitStack() as stack:

            def start(app: Any, **config: Any) -> ThreadedServer:
                return stack.enter_context(ThreadedServer(app, **config))

            yield start
