"""TCP ports for the servers under test, which run in many processes at once."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port that nobody else is given for the next minute, in this process or another.

    One that has only been looked up would be anybody's until the server has started. This one is
    left in TIME_WAIT: the kernel hands it out to nobody who asks for any port, and a server that
    asks for this one (with SO_REUSEADDR, as they all do) gets it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # whoever closes first is left with TIME_WAIT
            client.recv(1)
    return port


def listening_socket() -> socket.socket:
    """Return a listener on a port of its own, so that nothing has to wait for "started"."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener
