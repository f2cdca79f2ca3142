"""Descriptors that are put aside at startup, for a stop at which the process may have none left."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SpareDescriptors:
    """A few open descriptors without a use, each of which can become a duplicate of another."""

    def __init__(self) -> None:
        self._spare: list[socket.socket] = []

    def put_aside(self, count: int) -> None:
        """Open *count* of them, or as many as the process may have."""
        try:
            while len(self._spare) < count:
                self._spare.append(socket.socket(socket.AF_UNIX))
        except OSError:
            pass  # `duplicates` raises if there are too few

    def duplicates(self, sockets: Iterable[socket.socket]) -> list[socket.socket]:
        """Return a duplicate of each of *sockets*, as a whole `socket.socket`.

        The sockets of an event loop are objects that can do less.

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
            # `dup2` puts the duplicate into the place of the spare one, and needs no free number.
            descriptor = os.dup2(sock.fileno(), self._spare.pop().detach(), inheritable=False)
        else:
            descriptor = os.dup(sock.fileno())
        return socket.socket(sock.family, sock.type, sock.proto, fileno=descriptor)

    def close(self) -> None:
        """Give back what was not needed. Idempotent."""
        while self._spare:
            self._spare.pop().close()
