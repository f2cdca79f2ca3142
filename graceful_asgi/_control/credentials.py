"""Who is at the other end of a UNIX socket, as the kernel says."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Final

_LINUX: Final = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid."""
_DARWIN: Final = struct.Struct("IIh")
"""The beginning of `struct xucred`: version, uid, number of groups."""
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1


def peer_uid(connection: socket.socket) -> int | None:
    """Return the user id of the peer; None where the system does not say."""
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _LINUX.size)
        uid: int = _LINUX.unpack(data)[1]
        return uid & 0xFFFFFFFF
    if sys.platform == "darwin":
        data = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 128)
        return int(_DARWIN.unpack_from(data)[1])
    return None


def is_trusted(connection: socket.socket) -> bool:
    """Say whether the peer is this process's user, or root.

    Where the system says nothing, the directory alone decides who comes this far.
    """
    uid = peer_uid(connection)
    return uid is None or uid in (0, os.geteuid())
