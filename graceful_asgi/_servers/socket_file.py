"""The file of a UNIX socket, which only the server removes that has made it.

During a deployment the next server binds the same path while this one still drains. Then the path
belongs to that one, and removing it would cut every client off.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from .touchpoints import Config


class SocketFile:
    """The file that is at *path* now. Make it as soon as the socket is bound."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file, unless another has taken its place. Idempotent."""
        if self._identity is not None and _identity(self._path) == self._identity:
            with contextlib.suppress(OSError):
                os.remove(self._path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def take_over_removal(config: Config) -> bool:
    """Have `uvicorn.run()` not remove the file; return False if that does not run this server.

    It ends with `if config.uds and os.path.exists(config.uds): os.remove(config.uds)`, whosever the
    file is by then. Its configuration is its own, so that nobody else misses the path.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        is_run = frame.f_code.co_name == "run" and frame.f_globals["__name__"] == "uvicorn.main"
        if is_run and frame.f_locals.get("config") is config:
            config.uds = None
            return True
        frame = frame.f_back
    return False
