"""`SignalInbox`: signals as something to wait for, beside pipes and processes."""

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
    """Holds the signals that have come. Use it in the main thread, as a context manager.

    It has a file descriptor that is readable when one has come. Handlers stay as they are put in;
    what is put back at the end is where Python's wake-up descriptor was.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._signals: list[int] = []

    def __enter__(self) -> Self:
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        for number in self._numbers:
            signal.signal(number, self._note)
        fd = self._theirs.fileno()
        self._fd_before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._ours.fileno()

    def take(self) -> Iterator[int]:
        """Yield the signals that have come, in order, and forget them."""
        with contextlib.suppress(BlockingIOError):
            while self._ours.recv(4096):
                pass
        while self._signals:
            yield self._signals.pop(0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
