"""Descriptors that are put aside at startup, for a stop at which the process may have none left."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SpareDescriptors:
    """A few open descriptors that stand for nothing, each to become the duplicate of another."""

    def __init__(self) -> None:
        self._spare: list[socket.socket] = []

    def put_aside(self, count: int) -> None:
        """Have *count* of them, or as many as there are to be had."""
        try:
            while len(self._spare) < count:
                self._spare.append(socket.socket(socket.AF_UNIX))
        except OSError:
            pass  # `duplicates` says so if that is too few

    def duplicates(self, sockets: Iterable[socket.socket]) -> list[socket.socket]:
        """Return a duplicate of each of *sockets*, whole ones where those are a loop's stand-ins.

        Raises:
            OSError: too few were put aside, and the process has no free descriptor.
        """
        made: list[socket.socket] = []
        try:
            for each in sockets:
                made.append(self._duplicate(each))
        except OSError:
            for duplicate in made:
                duplicate.close()
            raise
        return made

    def _duplicate(self, sock: socket.socket) -> socket.socket:
        if self._spare:
            descriptor = os.dup2(sock.fileno(), self._spare.pop().detach(), inheritable=False)
        else:
            descriptor = os.dup(sock.fileno())
        return socket.socket(sock.family, sock.type, sock.proto, fileno=descriptor)

    def close(self) -> None:
        """Give back what was not needed. Idempotent."""
        while self._spare:
            self._spare.pop().close()
