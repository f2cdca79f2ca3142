"""Whether another process still serves from a listening socket that several have.

A worker of `uvicorn --workers` or of gunicorn is not told whether it alone is to stop, or all of
them. But each that stops can leave word, and the kernel says who has the socket. Linux only; where
anything is unclear the answer is that somebody serves.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from .gunicorn import shares_sockets_with_siblings_only, worker_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .touchpoints import Server

MOST_SIBLINGS: Final = 128


def may_have_siblings(server: Server) -> bool:
    """Say whether *server* is a worker of a parent which made the sockets itself.

    Only then is everybody who has them to be seen: not with a socket that came from outside.
    """
    if (worker := worker_of(server)) is not None:
        return shares_sockets_with_siblings_only(worker)
    config = server.config
    parent = multiprocessing.parent_process()
    return parent is not None and config.fd is None and config.workers > 1 and not config.reload


class SharedSockets:
    """The workers of one parent, as one of them sees them that is stopping.

    Args:
        sockets: the listening sockets that they share.
        parent: its process id, by default that of the process that this one is a worker of.
    """

    def __init__(self, sockets: Iterable[socket.socket], *, parent: int | None = None) -> None:
        self._parent = os.getppid() if parent is None else parent
        self._inodes = [os.fstat(each.fileno()).st_ino for each in sockets]
        self._words: list[socket.socket] = []

    def leave_word(self) -> None:
        """Let the others see that this worker is stopping. Forgotten with the process."""
        if sys.platform != "linux":
            return
        for inode in self._inodes:
            word = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                word.bind(_name(inode, os.getpid()))
                word.listen(MOST_SIBLINGS)
            except OSError:  # then the others take it for one that serves
                word.close()
            else:
                self._words.append(word)

    def all_leave(self) -> bool:
        """Say whether every worker that has one of the sockets has left word."""
        if sys.platform != "linux":
            return False
        try:
            return all(self._leaves(pid) for pid in _children(self._parent))
        except OSError:
            return False

    def _leaves(self, pid: int) -> bool:
        if all(_has_left_word(inode, pid) for inode in self._inodes):
            return True
        return _sockets_of(pid).isdisjoint(self._inodes)


def _name(inode: int, pid: int) -> bytes:
    return b"\0graceful_asgi.stopping.%d.%d" % (inode, pid)


def _has_left_word(inode: int, pid: int) -> bool:
    """Ask the kernel, and whether it was that very process which left it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_name(inode, pid))
        except OSError:
            return False
        size = struct.calcsize("3i")
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return bool(struct.unpack("3i", credentials)[0] == pid)


def _children(pid: int) -> Iterator[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        yield from map(int, file.read().split())


def _sockets_of(pid: int) -> set[int]:
    """Return the inodes of the sockets that a process has open. One that has gone has none."""
    inodes = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
                if link.startswith("socket:["):
                    inodes.add(int(link[8:-1]))
    return inodes
