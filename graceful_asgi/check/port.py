"""TCP ports as the load check needs them: a free one, and whether an HTTP server answers there."""

from __future__ import annotations

import http.client
import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free on `host` a moment ago; another process may still take it first."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(host: str, port: int, path: str, *, within: float) -> bool:
    """Whether ``GET path`` gets a complete answer, of any status, in `within` seconds."""
    probe = http.client.HTTPConnection(host, port, timeout=within)
    try:
        probe.request("GET", path, headers={"Connection": "close"})
        probe.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        probe.close()
    return True


def is_open(host: str, port: int) -> bool:
    """Whether anything accepts connections there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
