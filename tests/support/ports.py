"""TCP ports for the servers under test, which run in many processes at once."""

from __future__ import annotations

import socket
from typing import Final

_held: Final[list[int]] = []
"""The descriptors that hold the ports which this process was given, until it ends."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody else is given while this process lives.

    A port that has only been looked up would be anybody's until the server has started, and again
    while the server restarts: a client's own end takes any free one. This one is bound by a socket
    that never listens. So the kernel hands it out to nobody who asks for any port, refuses connects
    to it, and still gives it to a server that asks for this one with SO_REUSEADDR or SO_REUSEPORT,
    as they all do: on Linux two sockets with the first option are in conflict only if one of them
    listens, and with the second never.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        _held.append(holder.detach())
    return port


def listening_socket() -> socket.socket:
    """Return a listener on a port of its own, so that nothing has to wait for "started"."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener
