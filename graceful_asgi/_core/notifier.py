"""How word of a drain gets out: to waiting tasks, to the log, to hooks.

Triggers come from signal handlers and other threads, where neither waking a task nor logging is
safe (a `QueueHandler` takes a lock that the interrupted code may hold). So they only post; the
event loop, or the watchdog when the loop is stuck, publishes.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

from .. import log
from ..event_loop import RunSoon, Wakeup, run_soon
from ..phase import PhaseChange

DrainHook: TypeAlias = Callable[[PhaseChange], object]
News: TypeAlias = Callable[[], object]


class Waker(Protocol):
    """What wants to know that something has happened, and looks for itself what it was."""

    def wake(self) -> None:
        """Wake up. Idempotent; safe from any thread and in a signal handler."""


class Notifier:
    """Posts from anywhere, published on the event loop, in order."""

    def __init__(self) -> None:
        self.hooks: list[DrainHook] = []
        self._news: deque[News] = deque()
        self.wakers: set[Waker] = set()
        self._run_soon: RunSoon | None = None

    def bind(self) -> None:
        """Take the running loop as the one that publishes, and publish what waits for one."""
        self._run_soon = run_soon()
        self.publish()

    @property
    def bound(self) -> bool:
        """Whether there is a loop that publishes."""
        return self._run_soon is not None

    def post(self, news: News) -> None:
        """Have *news* called on the loop, and wake who listens. Safe in a signal handler."""
        self._news.append(news)
        self.wake()
        if self._run_soon is not None:
            # The loop has gone: whoever binds next, or the watchdog, publishes.
            with contextlib.suppress(RuntimeError):
                self._run_soon(self.publish)

    def publish(self) -> None:
        """Say what has been posted. Not for signal handlers."""
        while True:
            try:
                news = self._news.popleft()
            except IndexError:
                return
            news()

    def tell(self, change: PhaseChange) -> None:
        """Log a phase change and call the hooks with it. On the loop that publishes."""
        log.phase_changed(change)
        for hook in tuple(self.hooks):
            try:
                hook(change)
            except Exception:
                log.failed("hook %r failed; the drain goes on", hook)

    def wake(self) -> None:
        """Wake whoever listens. Safe in a signal handler."""
        for waker in tuple(self.wakers):
            waker.wake()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Wakeup]:
        """Listen for the length of a block."""
        listener = Wakeup()
        self.wakers.add(listener)
        try:
            yield listener
        finally:
            self.wakers.discard(listener)
