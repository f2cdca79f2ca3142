"""Runs a server as its configuration says: in one process, with workers, or under a reloader."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.supervisors import ChangeReload

from .._servers import UvicornHook
from .._servers.socket_file import SocketFile
from .config import STARTUP_FAILURE, DrainedConfig
from .startup import import_app, run_server
from .supervisor import Supervisor

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from types import FrameType


def serve(config: DrainedConfig) -> int:
    """Run the server, or its workers, to the end; return the exit code of the process.

    0 after a clean drain, 1 after a forced one, 3 (uvicorn's) where the app did not start. A server
    without workers raises `SystemExit` after a forced drain.

    Until the app is loaded the caller has to handle the signals. The kernel gives a process that is
    number 1 in its container no signal without a handler: it would go on after SIGTERM.
    """
    if config.should_reload:
        server = uvicorn.Server(config)
        with _bound(config) as sockets:
            ChangeReload(config, target=server.run, sockets=sockets).run()
        return 0
    if config.workers > 1:
        with _bound(config) as sockets:
            return Supervisor(config, sockets).run()
    if not import_app(config):
        return STARTUP_FAILURE
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what uvicorn leaves behind in the end
    for number in (signal.SIGHUP, signal.SIGQUIT):
        # A terminal that closes sends SIGHUP, Ctrl+\ SIGQUIT: uvicorn alone dies of them.
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)
    server = uvicorn.Server(config)
    try:
        run_server(server)
    except KeyboardInterrupt:  # Ctrl+C, after a clean drain
        if not server.started:
            raise
    finally:
        hook = UvicornHook.of(server)
        if hook is not None and hook.socket_file is not None:
            hook.socket_file.remove()
    return 0 if server.started else STARTUP_FAILURE


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal that uvicorn has no handler for as SIGTERM."""
    signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def _bound(config: uvicorn.Config) -> Iterator[list[socket.socket]]:
    """Bind the socket that several processes serve from; remove its file in the end."""
    sockets = [config.bind_socket()]
    file = None if config.uds is None else SocketFile(config.uds)
    try:
        yield sockets
    finally:
        if file is not None:
            file.remove()
