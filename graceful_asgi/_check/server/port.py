"""TCP ports as the load check needs them: a free one, and one on which a server answers."""

from __future__ import annotations

import http.client
import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOWEST: Final = 20_000
"""Well above the ports that services have by custom."""
_USUALLY_LOWEST: Final = 32_768
"""The lowest port that Linux gives to whoever asks for any, where it has not been set."""
_TRIES: Final = 50
# pytest-randomly gives the shared generator the same seed in each process of a suite: all of them
# would get the same port.
_RANDOM: Final = random.SystemRandom()


def free_port() -> int:
    """Return a port of this machine that is free, and that nobody gets by chance.

    A server has its port a while after this returns, and gives it up while it restarts. In between
    the kernel would give a port of its own range to the first client that connects to somewhere
    (`ip_local_port_range`, ip(7)). So this one is below that range, where only those get it that
    ask for its number. It is not bound here: that would keep out a server without SO_REUSEADDR.
    """
    end = _kernels_lowest()
    for _ in range(_TRIES if end > _LOWEST else 0):
        with suppress(OSError):
            return _bound_once(_RANDOM.randrange(_LOWEST, end))
    return _bound_once(0)


def _kernels_lowest() -> int:
    """Return the lowest port that the kernel gives to whoever asks for any."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _USUALLY_LOWEST


def _bound_once(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", port))
        number: int = probe.getsockname()[1]
        return number


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
