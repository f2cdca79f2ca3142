"""`Notifier`: wakes the tasks that wait for a drain, and calls all that listen to it, in order.

Triggers come from signal handlers and other threads. Neither a hook nor a log record is safe there:
a `QueueHandler` takes a lock that the interrupted code may hold. So triggers only post. The event
loop publishes what was posted, or the watchdog where the loop is stuck.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from .. import log
from ..event_loop import RunSoon, Wakeup, in_event_loop, run_soon
from ..phase import Phase, PhaseChange
from .server_adapter import StoppableServer

if TYPE_CHECKING:
    from .server_adapter import ServerEvents

DrainHook: TypeAlias = Callable[[PhaseChange], object]
News: TypeAlias = Callable[[], object]
T = TypeVar("T")


class Waker(Protocol):
    """Can be woken from any thread; reads the drain anew when it is."""

    def wake(self) -> None:
        """Wake up. Idempotent; safe from any thread and in a signal handler."""


class Notifier:
    """Takes posts from any thread and signal handler, and publishes them on the loop, in order."""

    def __init__(self) -> None:
        self.hooks: list[DrainHook] = []
        self.server_events: list[ServerEvents] = []
        """Objects whose methods are called when something happens to the server."""
        self._news: deque[News] = deque()
        self.wakers: set[Waker] = set()
        self._run_soon: RunSoon | None = None

    def bind(self) -> None:
        """Take the running loop as the one that publishes, and publish what was posted before."""
        self._run_soon = run_soon()
        self.publish()

    @property
    def bound(self) -> bool:
        """True once there is a loop that publishes."""
        return self._run_soon is not None

    def post(self, news: News) -> None:
        """Call *news* on the loop, soon, and wake the waiting tasks. Safe in a signal handler."""
        self._news.append(news)
        self.wake()
        if not self._publish_soon() and in_event_loop():
            # No server has bound its loop, or the loop that was bound is closed. This is a program
            # or a test that uses a drainer by itself.
            self._run_soon = run_soon()
            self._publish_soon()

    def _publish_soon(self) -> bool:
        """Ask the bound loop to publish. Return False if there is none that could.

        Then the next loop that binds publishes what was posted, or the watchdog does.
        """
        if self._run_soon is None:
            return False
        try:
            self._run_soon(self.publish)
        except RuntimeError:  # the loop is closed, or trio's run is over
            return False
        return True

    def publish(self) -> None:
        """Call everything that was posted. Not for signal handlers."""
        while True:
            try:
                news = self._news.popleft()
            except IndexError:
                return
            news()

    def tell(self, change: PhaseChange) -> None:
        """Log a phase change, and call hooks and server events. On the loop that publishes."""
        log.phase_changed(change)
        for hook in tuple(self.hooks):
            with log.caught("hook %r failed; the drain goes on", hook):
                hook(change)
        self._tell_events(lambda events: events.phase_changed(change))
        if change.phase is Phase.STOPPED:
            self.server_closed()

    def server_opened(self) -> None:
        """Call `opened` of all `server_events`: the server listens."""
        self._tell_events(lambda events: events.opened())

    def server_closed(self) -> None:
        """Call `closed` of all `server_events`: the server stopped, or failed to start."""
        for events in tuple(self.server_events):
            self._close(events)

    def start_failed(self, server: StoppableServer | None) -> None:
        """Call `closed` of *server*, which has failed to start, and forget it. Idempotent.

        The others are closed as well, unless another server has the same drainer and goes on. None
        is a server that cannot be stopped from here.
        """
        if server is None or self.servers() == [server]:
            self.server_closed()
        elif server in self.server_events:
            self._close(server)

    def servers(self) -> list[StoppableServer]:
        """Return the servers that can be stopped from here: several may have one drainer."""
        return [each for each in self.server_events if isinstance(each, StoppableServer)]

    def _close(self, events: ServerEvents) -> None:
        if not events.outlives_server:
            self.server_events.remove(events)
        with _caught(events):
            events.closed()

    def _tell_events(self, call: Callable[[ServerEvents], object]) -> None:
        for events in tuple(self.server_events):
            with _caught(events):
                call(events)

    def wake(self) -> None:
        """Wake the waiting tasks and threads. Safe in a signal handler."""
        for waker in tuple(self.wakers):
            waker.wake()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Wakeup]:
        """Yield a `Wakeup` that each change of the drain wakes, for the length of a block."""
        listener = Wakeup()
        self.wakers.add(listener)
        try:
            yield listener
        finally:
            self.wakers.discard(listener)

    async def wait_for(
        self, condition: Callable[[], T | None], changes_in: Callable[[], float] = lambda: math.inf
    ) -> T:
        """Wait until *condition* returns a true value; return that value.

        It is asked whenever the drain changes, and in the seconds that *changes_in* returns, when
        time alone may make it true.
        """
        if not self.bound:
            self.bind()
        with self.listening() as wakeup:
            while not (value := condition()):
                # A change that time alone makes is over by then: only an event can make another.
                seconds = changes_in()
                await wakeup.wait(seconds if seconds > 0 else math.inf)
        return value


def _caught(events: ServerEvents) -> contextlib.AbstractContextManager[None]:
    return log.caught("%s failed; the server goes on", type(events).__name__)
