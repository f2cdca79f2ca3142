"""A control socket in the tests' own process, and peers that say what they want to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from support.polling import PATIENCE

from graceful_asgi import DrainPolicy
from graceful_asgi._control.directory import ControlDirectory, SocketName
from graceful_asgi._control.extension import ControlSocket
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._core.server_context import ServerContext, ServerId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = DrainPolicy(lame_duck_period=0.1, grace_period=30)
PATIENT = DrainPolicy(lame_duck_period=60, grace_period=60)

STATUS = b'{"v": 1, "command": "status"}\n'
DRAIN = b'{"v": 1, "command": "drain", "reason": "test"}\n'
WAIT = b'{"v": 1, "command": "drain", "wait": true}\n'
RESUME = b'{"v": 1, "command": "resume"}\n'


class Open:
    """An open control socket, and where it is."""

    def __init__(self, path: Path, policy: DrainPolicy, server: ServerId | None) -> None:
        self.drainer = DrainRunner(policy)
        self.drainer.bind()
        if server is not None:
            self.drainer.context = ServerContext(pid=server.pid, identify=lambda: server)
        before = set(os.listdir(path)) if path.exists() else set()
        self.socket = ControlSocket(self.drainer, ControlDirectory(str(path), create=True))
        self.directory = ControlDirectory(str(path))
        [text] = set(os.listdir(path)) - before
        name = SocketName.parse(text)
        assert name is not None
        self.name = name

    def connect(self) -> socket.socket:
        """Return a connection, as a peer has it."""
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        while True:
            try:
                peer.connect(self.directory.address(self.name))
                return peer
            except BlockingIOError:  # the queue is full
                time.sleep(0.001)

    def say(self, data: bytes) -> list[dict[str, Any]]:
        """Send *data* on a connection of its own; return what comes back until that closes.

        Blocks the event loop, and so shows that the answer comes from elsewhere.
        """
        with self.connect() as peer:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has read enough
                peer.sendall(data)
            return read_all(peer)


def read_all(peer: socket.socket) -> list[dict[str, Any]]:
    """Return the lines that come on *peer* until it is closed."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := peer.recv(65536):
            data += more
    return [json.loads(line) for line in data.splitlines()]


@contextmanager
def control(
    path: Path, policy: DrainPolicy = PATIENT, *, server: ServerId | None = None
) -> Iterator[Open]:
    """A control socket in the directory *path*, for a block. On an event loop."""
    opened = Open(path, policy, server)
    try:
        yield opened
    finally:
        opened.socket.closed()
        opened.directory.close()
