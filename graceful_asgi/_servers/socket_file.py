"""The file of a UNIX socket: only the server that made it may remove it.

During a deployment the next server binds the same path while this server still drains. Then the
file belongs to the next server, and removing it would cut every client off.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from .._diagnostics.stacks import stack_of

if TYPE_CHECKING:
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
    """Prevent `uvicorn.run()` from removing the file; return False if it does not run this server.

    `uvicorn.run()` ends with `if config.uds and os.path.exists(config.uds): os.remove(config.uds)`,
    whichever server has made the file. Its `Config` is a local variable, so nothing else reads it.
    """
    for frame in stack_of(sys._getframe()):
        # Other frames may be named `run`: `Server.run` is in uvicorn.server.
        is_run = frame.f_code.co_name == "run" and frame.f_globals["__name__"] == "uvicorn.main"
        if is_run and frame.f_locals.get("config") is config:
            config.uds = None
            return True
    return False
