"""Runs a server as its configuration says: in one process, with workers, or under a reloader."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.supervisors import ChangeReload

from .config import STARTUP_FAILURE, DrainedConfig
from .supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator


def serve(config: DrainedConfig) -> int:
    """Run the server, or its workers, to the end; return the exit code of the process.

    0 after a clean drain, 1 after a forced one, 3 (uvicorn's) where the app did not start. A server
    without workers that ends by a signal raises `SystemExit` with that code.

    Until the app is loaded the signals are the caller's, who should take them: by default a process
    that is number 1 in its container hears of none, and would serve after it was told to stop.
    """
    with _socket_file_removed(config):
        if config.should_reload:
            server = uvicorn.Server(config)
            ChangeReload(config, target=server.run, sockets=[config.bind_socket()]).run()
            return 0
        if config.workers > 1:
            return Supervisor(config, [config.bind_socket()]).run()
        with contextlib.suppress(ImportFromStringError):  # which is said when it is loaded
            import_from_string(config.app)  # outside of the event loop, and of uvicorn's handlers
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what uvicorn leaves behind in the end
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # A terminal that is closed says so: uvicorn alone would be gone on the spot.
            signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
        server = uvicorn.Server(config)
        server.run()
        return 0 if server.started else STARTUP_FAILURE


@contextlib.contextmanager
def _socket_file_removed(config: uvicorn.Config) -> Iterator[None]:
    try:
        yield
    finally:
        if config.uds:
            with contextlib.suppress(FileNotFoundError):
                os.remove(config.uds)
