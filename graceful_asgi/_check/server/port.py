"""TCP ports as the load check needs them: a free one, and one on which a server answers."""

from __future__ import annotations

import http.client
import socket


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago; another process may take it first."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
