"""The control socket's server: a thread of its own, to answer when the event loop does not.

One selector, no thread per connection. Each step is short and never blocks: a peer that does not
read, or says nothing, holds up nobody.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from .. import log
from .connection import Connection
from .credentials import is_trusted
from .directory import BACKLOG
from .handler import Desk
from .protocol import build_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.runner import DrainRunner

    Ready = list[tuple[selectors.SelectorKey, int]]

MAX_CONNECTIONS: Final = 64
DEAF_PERIOD: Final = 1.0
"""Seconds without accepting, where the process has no descriptor left for it."""
CLOSE_PERIOD: Final = 0.5
"""Seconds that closing waits for a step that is under way."""


class ControlServer:
    """Serves one drainer's control socket, on *listener*, until it is closed.

    The methods are safe from any thread; `wake` in a signal handler, too.
    """

    def __init__(
        self, drainer: DrainRunner, listener: socket.socket, *, on_end: Callable[[], object]
    ) -> None:
        self._on_end = on_end
        """Called in the thread when it ends."""
        self._bulletin = drainer.notifier
        self._desk = Desk(drainer)
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._deaf_until = 0.0
        self._selector.register(self._ear, selectors.EVENT_READ, self._hear)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._thread = threading.Thread(
            target=self._run, name="graceful_asgi control socket", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        # A child of this process has the descriptors, and not the thread.
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (found := forget()) and found())
        self._bulletin.wakers.add(self)
        self._thread.start()

    def wake(self) -> None:
        """Have the thread look at the drain."""
        with contextlib.suppress(OSError):  # full: it will wake; closed: it will not
            self._mouth.send(b"\0")

    def close(self) -> None:
        """Tell those who wait how it came out, and serve no more. Idempotent."""
        self._bulletin.wakers.discard(self)
        # A step takes no time, unless the process is frozen as a whole.
        locked = self._lock.acquire(timeout=CLOSE_PERIOD)
        try:
            if self._closed:
                return
            self._closed = True
            self._desk.tell_outcomes(self._connections)
            self._listener.close()
            for connection in self._connections:
                connection.close()
        finally:
            if locked:
                self._lock.release()
        self.wake()

    def join(self) -> None:
        """Wait until the thread has ended, for `CLOSE_PERIOD` at the most."""
        self._thread.join(CLOSE_PERIOD)

    def _forget(self) -> None:
        self._closed = True
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()
        for each in (self._listener, self._ear, self._mouth):
            each.close()

    # The thread

    def _run(self) -> None:
        try:
            while not self._closed:
                ready = self._selector.select(self._patience())
                with self._lock:
                    if not self._closed:
                        self._try_step(ready)
        finally:
            self._selector.close()
            self._ear.close()
            self._mouth.close()
            self._on_end()

    def _try_step(self, ready: Ready) -> None:
        try:
            self._step(ready)
        except Exception:
            log.failed("the control socket failed; it goes on without those connected to it")
            for connection in tuple(self._connections):
                self._let_go(connection)

    def _step(self, ready: Ready) -> None:
        for key, events in ready:
            act: Callable[[int], None] = key.data
            act(events)
        if self._deaf_until and time.monotonic() >= self._deaf_until:
            self._deaf_until = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._desk.tell_outcomes(self._connections)
        self._desk.tell_progress(self._connections)
        for connection in tuple(self._connections):
            if connection.closed or connection.idle_left() <= 0:
                self._let_go(connection)
            else:
                self._listen(connection)

    def _patience(self) -> float | None:
        """Return how long nothing is to be done, if nothing happens."""
        now = time.monotonic()
        ends = [connection.idle_left() for connection in self._connections]
        for connection in self._connections:
            if connection.begun is not None:
                ends += (connection.begun.changes_in(), connection.progress_due - now)
        if self._deaf_until:
            ends.append(self._deaf_until - now)
        left = min(ends, default=float("inf"))
        return None if left == float("inf") else max(0.0, left)

    def _hear(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)

    def _accept(self, _: int) -> None:
        # More than one: a peer whose connect meets a full queue is told to try again, not to wait.
        with contextlib.suppress(BlockingIOError, InterruptedError, ConnectionError):
            for _ in range(BACKLOG):
                self._accept_one()

    def _accept_one(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            raise
        except OSError as error:  # no descriptors: the listener stays readable, so look away
            log.caution("the control socket cannot accept: %s", error)
            self._selector.unregister(self._listener)
            self._deaf_until = time.monotonic() + DEAF_PERIOD
            raise BlockingIOError from error
        try:
            self._receive(sock)
        except BaseException:
            sock.close()
            raise

    def _receive(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        if not is_trusted(sock):
            self._fail(connection, "refused: this is for the server's own user, and for root")
            connection.close()
        elif not self._make_room():
            self._fail(connection, f"{MAX_CONNECTIONS} connections are waiting already")
            connection.close()
        else:
            self._connections.add(connection)

    def _make_room(self) -> bool:
        """Let the peer go that has said nothing for longest, where there are too many."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        idle = [each for each in self._connections if each.begun is None]
        if idle:
            self._let_go(min(idle, key=Connection.idle_left))
        return bool(idle)

    def _listen(self, connection: Connection) -> None:
        """Wait for what the connection waits for now."""
        registered = self._selector.get_map().get(connection.socket)
        if registered is None:
            if connection.events:
                serve = functools.partial(self._serve, connection)
                self._selector.register(connection.socket, connection.events, serve)
        elif not connection.events:
            self._selector.unregister(connection.socket)
        elif registered.events != connection.events:
            self._selector.modify(connection.socket, connection.events, registered.data)

    def _let_go(self, connection: Connection) -> None:
        # Out of the selector first: a descriptor that is closed comes back as another one.
        self._connections.discard(connection)
        if self._selector.get_map().get(connection.socket) is not None:
            self._selector.unregister(connection.socket)
        connection.close()

    def _serve(self, connection: Connection, events: int) -> None:
        if connection.closed:
            return
        try:
            if events & selectors.EVENT_WRITE:
                connection.write()
            if events & selectors.EVENT_READ and (line := connection.read()) is not None:
                self._desk.answer(connection, line)
        except ConnectionError:
            connection.closed = True
        except Exception:
            log.failed("a request on the control socket failed; it goes on")
            self._fail(connection, "this request failed: the server's log says why")

    def _fail(self, connection: Connection, why: str) -> None:
        connection.say(build_reply("error", error=why), last=True)
