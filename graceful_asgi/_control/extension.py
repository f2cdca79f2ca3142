"""`ControlSocket`: opens the control socket of a process, and removes it at the end."""

from __future__ import annotations

import atexit
import os
import socket
from typing import TYPE_CHECKING

from .. import log
from .._core.server_adapter import ServerEvents
from ..errors import ControlError
from ..event_loop import in_event_loop
from . import CONTROL_DIR
from .directory import ControlDirectory, SocketName, open_private
from .peers import ControlPeers, UnreachablePeers
from .server import ControlServer

if TYPE_CHECKING:
    from .._core.runner import DrainRunner


def open_control_socket(drainer: DrainRunner) -> ControlSocket | None:
    """Open the control socket of *drainer*'s process. Not on the event loop: it reads directories.

    The directory is `GRACEFUL_CONTROL_DIR`. Without it the workers of a server that has a drain
    endpoint find each other in the user's runtime directory.

    Raises:
        ControlError: the directory that was given cannot be used.
    """
    if path := os.environ.get(CONTROL_DIR):
        if not hasattr(socket, "AF_UNIX"):
            raise ControlError(
                f"{CONTROL_DIR}={path!r} is not allowed: no UNIX sockets on this platform"
            )
        return ControlSocket(drainer, ControlDirectory(path, create=True))
    try:
        return ControlSocket(drainer, open_private())
    except ControlError as error:
        log.caution(
            "the drain endpoint drains this process alone, the other workers cannot be reached: "
            "%s; set %s to a directory that can be used",
            error,
            CONTROL_DIR,
        )
        drainer.peers = UnreachablePeers(str(error))
        return None


class ControlSocket(ServerEvents):
    """One process's control socket. Closed when its server has stopped, or the process ends.

    It answers while the server starts, too. Every phase change wakes the control thread by itself.
    """

    def __init__(self, drainer: DrainRunner, directory: ControlDirectory) -> None:
        self._drainer = drainer
        self._directory = directory
        self._pid = os.getpid()
        self._name = SocketName(drainer.context.identify(), self._pid)
        try:
            directory.clean_up()
            listener = directory.listen(self._name)
        except BaseException:
            directory.close()
            raise
        self._server = ControlServer(drainer, listener, on_end=self._remove)
        self._server.start()
        drainer.peers = ControlPeers(directory, self._name)
        atexit.register(self.closed)

    def closed(self) -> None:
        """Remove the socket, and send the outcome to every peer that waits. Idempotent."""
        if os.getpid() != self._pid:  # a forked child: the socket is its parent's
            return
        self._drainer.peers = None
        self._server.close()
        if not in_event_loop():
            self._server.join()

    def _remove(self) -> None:
        """Remove the file of the socket. In the control thread: the event loop must not block."""
        atexit.unregister(self.closed)
        self._directory.remove(self._name)
        self._directory.close()
