"""`ControlServer`: a thread that serves the control socket, also while the event loop is blocked.

It has one selector, and no thread per connection. Each step is short and never blocks: a peer that
does not read, or sends nothing, delays nobody.
"""

from __future__ import annotations

import contextlib
import functools
import selectors
import socket
import threading
from typing import TYPE_CHECKING, Final

from .. import log
from ..event_loop import monotonic
from ..threads import BareThread, resume
from .connection import ControlConnection, is_trusted
from .directory import BACKLOG
from .handler import MAX_WAITING, RequestHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.runner import DrainRunner

    Ready = list[tuple[selectors.SelectorKey, int]]

MAX_CONNECTIONS: Final = MAX_WAITING + 16
"""More than may wait for a drain: `status` and `resume` always find room. A connection that has
sent no request yet is closed for a new one."""
ACCEPT_PAUSE: Final = 1.0
"""Seconds without accepting where the process has no descriptor left for a connection."""
CLOSE_PERIOD: Final = 0.5
"""Seconds that closing waits for the current step of the thread."""


class ControlServer:
    """Serves one drainer's control socket, on *listener*, until it is closed.

    The methods are safe from any thread; `wake` in a signal handler, too. *listener* is closed
    here. *on_end* is called in the thread when it ends.
    """

    def __init__(
        self, drainer: DrainRunner, listener: socket.socket, *, on_end: Callable[[], object]
    ) -> None:
        self._on_end = on_end
        self._notifier = drainer.notifier
        self._connections: set[ControlConnection] = set()
        self._handler = RequestHandler(drainer, self._connections)
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._lock = threading.Lock()
        self._closed = False
        self._accepts_again_at = 0.0
        """The end of a pause in accepting; 0 where there is none."""
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._take_wakes)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._ended = threading.Event()
        self._thread = BareThread(self._run, wake=self.wake, lost=self._end, forget=self._forget)

    def start(self) -> None:
        """Begin to serve.

        Raises:
            RuntimeError: the system has no thread to give.
        """
        self._notifier.wakers.add(self)
        if not self._thread.start():
            self._notifier.wakers.discard(self)
            raise RuntimeError("no thread can be started for the control socket")

    def wake(self) -> None:
        """Make the thread look at the drain."""
        # A full buffer wakes the thread anyway; a closed socket has no thread any more.
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def close(self) -> None:
        """Send the outcome to every peer that waits for one, and serve no more. Idempotent."""
        self._notifier.wakers.discard(self)
        # A step takes no time, unless the whole process is suspended.
        locked = self._lock.acquire(timeout=CLOSE_PERIOD)
        try:
            if self._closed:
                return
            self._closed = True
            self._handler.send_outcomes()
            self._listener.close()
            for connection in self._connections:
                connection.close()
        finally:
            if locked:
                self._lock.release()
        self.wake()
        resume()  # a fork may have paused it

    def join(self) -> None:
        """Wait until the thread has ended, for `CLOSE_PERIOD` at the longest."""
        self._ended.wait(CLOSE_PERIOD)

    def _forget(self) -> None:
        """Close the descriptors of a forked child: they are copies, and nobody serves them."""
        self._closed = True
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()
        for each in (self._listener, self._wake_reader, self._wake_writer):
            each.close()

    # The thread

    def _run(self) -> bool:
        try:
            while not self._closed:
                if self._thread.must_pause():
                    return True
                ready = self._selector.select(self._timeout())
                with self._lock:
                    if not self._closed:
                        self._try_step(ready)
        except BaseException:
            self._end()
            raise
        self._end()
        return False

    def _end(self) -> None:
        """Release everything: it is closed, or there is no thread to serve."""
        self.close()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
        self._on_end()
        self._ended.set()

    def _try_step(self, ready: Ready) -> None:
        try:
            self._step(ready)
        except Exception:
            log.failed("the control socket failed: it drops its connections, and accepts new ones")
            for connection in tuple(self._connections):
                self._drop(connection)

    def _step(self, ready: Ready) -> None:
        for key, events in ready:
            act: Callable[[int], None] = key.data
            act(events)
        if self._accepts_again_at and monotonic() >= self._accepts_again_at:
            self._accepts_again_at = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._handler.send_outcomes()
        self._handler.send_progress()
        for connection in tuple(self._connections):
            if connection.closed or connection.idle_left() <= 0:
                self._drop(connection)
            else:
                self._wait_for(connection)

    def _timeout(self) -> float | None:
        """Return the seconds until something is due although nothing happens; None for never."""
        now = monotonic()
        ends = [connection.idle_left() for connection in self._connections]
        for connection in self._connections:
            if connection.begun is not None:
                ends += (connection.begun.changes_in(), connection.progress_due - now)
        if self._accepts_again_at:
            ends.append(self._accepts_again_at - now)
        left = min(ends, default=float("inf"))
        return None if left == float("inf") else max(0.0, left)

    def _take_wakes(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)

    def _accept(self, _: int) -> None:
        # More than one: a `connect` that meets a full queue fails at once, and has to be repeated.
        for _ in range(BACKLOG):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                # No descriptor is left. The listener stays readable: without a pause this would
                # spin.
                log.caution("the control socket cannot accept, and tries again later: %s", error)
                self._selector.unregister(self._listener)
                self._accepts_again_at = monotonic() + ACCEPT_PAUSE
                return
            try:
                self._admit(sock)
            except BaseException:
                sock.close()
                raise

    def _admit(self, sock: socket.socket) -> None:
        connection = ControlConnection(sock)
        if not is_trusted(sock):
            connection.send_error("refused: this is for the server's own user, and for root")
            connection.close()
        else:
            self._make_room()
            self._connections.add(connection)

    def _make_room(self) -> None:
        """Drop the peer that has been silent for longest, where there are too many connections."""
        if len(self._connections) >= MAX_CONNECTIONS:
            # There is one: fewer than all of them may wait for a drain.
            silent = [each for each in self._connections if each.begun is None]
            self._drop(min(silent, key=ControlConnection.idle_left))

    def _wait_for(self, connection: ControlConnection) -> None:
        """Register the events in the selector that the connection waits for now."""
        registered = self._selector.get_map().get(connection.socket)
        if registered is None:
            if connection.events:
                serve = functools.partial(self._serve, connection)
                self._selector.register(connection.socket, connection.events, serve)
        elif not connection.events:
            self._selector.unregister(connection.socket)
        elif registered.events != connection.events:
            self._selector.modify(connection.socket, connection.events, registered.data)

    def _drop(self, connection: ControlConnection) -> None:
        # Out of the selector first: the number of a closed descriptor is used again.
        self._connections.discard(connection)
        if self._selector.get_map().get(connection.socket) is not None:
            self._selector.unregister(connection.socket)
        connection.close()

    def _serve(self, connection: ControlConnection, events: int) -> None:
        if connection.closed:
            return
        try:
            if events & selectors.EVENT_WRITE:
                connection.write()
            if events & selectors.EVENT_READ and (line := connection.read()) is not None:
                self._handler.handle(connection, line)
        except ConnectionError:
            connection.closed = True
        except Exception:
            log.failed("a request on the control socket failed; the socket goes on")
            connection.send_error("this request failed: the server's log says why")
