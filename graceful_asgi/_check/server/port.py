"""TCP ports as the load check needs them: one held free, and one on which a server answers."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import weakref
from typing import Final


class HeldPort:
    """A port of 127.0.0.1 that nobody else is given until it is closed.

    A port that has only been looked up would be anybody's until the server has started, and again
    while it restarts. This one is bound by a socket that never listens: the kernel refuses connects
    to it, and gives it to nobody who asks for any port. It still gives it to a server that asks for
    this port with SO_REUSEADDR or SO_REUSEPORT, as nearly all servers do: on Linux two sockets
    with the first option are in conflict only if one of them listens, and with the second never.
    On other systems they are in conflict, so there the port is only looked up.
    """

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
            if sys.platform == "linux":
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(("127.0.0.1", 0))
            self.number: Final[int] = holder.getsockname()[1]
            self._close = weakref.finalize(self, os.close, holder.detach())
        if sys.platform != "linux":
            self.close()

    def close(self) -> None:
        """Give the port up. Idempotent."""
        self._close()


def answers(host: str, port: int, path: str, *, within: float) -> bool:
    """Return True if ``GET path`` gets a complete answer, of any status, in `within` seconds."""
    probe = http.client.HTTPConnection(host, port, timeout=within)
    try:
        probe.request("GET", path, headers={"Connection": "close"})
        probe.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        probe.close()
    return True


def connects(host: str, port: int) -> bool:
    """Return True if the port accepts a connection."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def why_no_answer(host: str, port: int, path: str, within: float) -> str:
    """Return what is wrong with a server that did not answer `within` seconds, in words."""
    if connects(host, port):
        return f"did not answer GET {path} on {host}:{port} in {within:g} s"
    return (
        f"did not open {host}:{port} in {within:g} s "
        "({port} in the command and PORT in its environment say which port it has to be)"
    )
