"""Identifies the server that a process belongs to, as its only process or as one of its workers."""

from __future__ import annotations

import multiprocessing
import os
import zlib
from typing import TYPE_CHECKING, Final

from .._core.server_context import ServerId
from .gunicorn import worker_of

if TYPE_CHECKING:
    from .touchpoints import Server

_WHERE: Final = ("host", "port", "uds", "fd")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def server_pid(server: Server | None) -> int:
    """Return the pid of the parent of the server's workers, or of this process if it has none.

    The parent is multiprocessing's (uvicorn, `graceful-asgi run`, hypercorn), or gunicorn's.
    """
    if multiprocessing.parent_process() is not None:
        return os.getppid()
    if server is not None and (worker := worker_of(server)) is not None:
        return worker.ppid
    return os.getpid()


def server_id(server: Server | None) -> ServerId:
    """Return the identity that this process shares with the other workers of its server.

    Two servers below one parent differ by where they listen, and two of the same pid by their pid
    namespaces. Do not call it on the event loop: it reads a link in /proc.
    """
    config = None if server is None else server.config
    where = [str(getattr(config, name, "")) for name in _WHERE]
    return ServerId(server_pid(server), _token("|".join((_pid_namespace(), *where))))


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # no pid namespaces, or no /proc
        return ""


def _token(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits or "0"
