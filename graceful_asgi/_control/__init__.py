"""The control socket: one UNIX socket per process, in a directory of the server's own user."""

from __future__ import annotations

from typing import Final

CONTROL_DIR: Final = "GRACEFUL_CONTROL_DIR"
"""The variable that asks for a control socket, and names its directory."""
