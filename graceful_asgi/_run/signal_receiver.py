"""`SignalReceiver`: signals as something to wait for, beside pipes and processes."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from typing_extensions import Self


class SignalReceiver:
    """Keeps the signals that have come. Use it in the main thread, as a context manager.

    It has a descriptor that is readable once a signal has come. At the end the handlers stay
    installed; Python's wake-up descriptor is put back to what it was.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._received: list[int] = []

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        fd = self._writer.fileno()
        # First: for a signal that comes before it the descriptor would not become readable.
        self._fd_before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader.fileno()

    def take(self) -> Iterator[int]:
        """Yield the signals that have come, in order, and forget them."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        while self._received:
            yield self._received.pop(0)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
