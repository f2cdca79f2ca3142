"""TCP ports for the servers under test, which run in many processes at once."""

from __future__ import annotations

import socket
from typing import Final

from graceful_asgi._check.server.port import HeldPort

_held: Final[list[HeldPort]] = []
"""The ports that this process was given, until it ends."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody else is given while this process lives."""
    port = HeldPort()
    _held.append(port)
    return port.number


def listening_socket() -> socket.socket:
    """Return a listener on a port of its own, so that nothing has to wait for "started"."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener
