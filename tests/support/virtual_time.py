"""Clocks for tests: a wait of 30 s takes no time, on both event loops."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

import trio.testing

if TYPE_CHECKING:
    from collections.abc import Callable


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the time on in place of waiting, where nothing is ready."""

    time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no timer is set: only another thread can go on
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.time += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in which a wait of 30 s takes no time, as trio has it in `MockClock`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.time


def virtual_time(backend: str) -> tuple[str, dict[str, Any]]:
    """Return *backend* for an `anyio_backend` fixture, with time that jumps from timer to timer."""
    if backend == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def virtual_clock() -> Callable[[], float] | None:
    """Return what a `Drainer` in virtual time takes for `clock`. In trio it finds it by itself."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return None


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += seconds
