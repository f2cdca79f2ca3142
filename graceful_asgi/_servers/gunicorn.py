"""Adapts a uvicorn server that runs in a gunicorn worker (uvicorn-worker).

gunicorn's parent stops a worker with SIGTERM (at TERM, HUP, TTOU). If the parent itself got a quick
stop (INT, QUIT, or one of them after TERM), it sends SIGQUIT. uvicorn-worker does nothing at
SIGQUIT: the parent waits for `graceful_timeout`, then kills. Here both signals begin a drain.

This module names everything of gunicorn's that is touched. A test fails when gunicorn moves it.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any, Protocol, cast

from .._core.server_adapter import ServerEvents
from .signals import QUICK_STOPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .signals import HookedServer
    from .touchpoints import Server


class WorkerConfig(Protocol):
    """`Worker.cfg`: gunicorn's settings. Read only."""

    graceful_timeout: float
    """Seconds from the stop until the parent kills what is left."""
    address: Sequence[object]
    """The addresses to listen on; a number is a descriptor that came from outside."""
    reuse_port: bool
    """True if each worker has a socket of its own, on one port."""


class GunicornWorker(Protocol):
    """`gunicorn.workers.base.Worker`."""

    cfg: WorkerConfig
    alive: bool
    """False once uvicorn-worker's own handler has got a SIGQUIT. uvicorn-worker never reads it."""
    ppid: int


def worker_of(server: Server) -> GunicornWorker | None:
    """Return the gunicorn worker that *server* runs in, or None. Imports nothing.

    uvicorn-worker has the server call the worker's own `callback_notify` for the heartbeat.
    """
    module: Any = sys.modules.get("gunicorn.workers.base")
    # uvicorn-worker gives its server `callback_notify=self.callback_notify`: a bound method.
    callback = getattr(server.config, "callback_notify", None)
    worker = getattr(callback, "__self__", None)
    if module is None or not isinstance(worker, module.Worker):
        return None
    return cast("GunicornWorker", worker)


def shares_sockets_with_siblings_only(worker: GunicornWorker) -> bool:
    """Return True if only children of the worker's parent have the listening sockets.

    False if the parent got them from systemd or from an earlier gunicorn (USR2), which shows in the
    environment that the parent was started with. False if that environment cannot be read.
    """
    if worker.cfg.reuse_port or any(isinstance(place, int) for place in worker.cfg.address):
        return False
    if "setproctitle" in sys.modules:  # it writes over that environment
        return False
    try:
        names = _environment_of("self")
    except OSError:
        return False
    return names.isdisjoint((b"LISTEN_FDS", b"GUNICORN_FD"))


def took_over_sockets(pid: int) -> bool:
    """Return True if a process is the parent of the next gunicorn, which SIGUSR2 has started.

    It is a child of the old parent, and starts workers of its own on the same sockets.

    Raises:
        OSError: the environment that the process was started with cannot be read.
    """
    return b"GUNICORN_FD" in _environment_of(pid)


def _environment_of(pid: int | str) -> set[bytes]:
    """Return the names in the environment that a process was started with."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        return {entry.partition(b"=")[0] for entry in file.read().split(b"\0")}


class QuickStopHandlers(ServerEvents):
    """Makes a hooked server handle SIGQUIT as it handles SIGINT.

    uvicorn-worker's own handler only sets a flag that nothing reads. These are plain handlers, as
    uvicorn's are: a handler that the event loop runs is not called while the loop is blocked. They
    may be set here because a worker serves in its main thread.
    """

    def __init__(self, hook: HookedServer, worker: GunicornWorker) -> None:
        self._hook = hook
        self._worker = worker
        if hook.in_main_thread:
            for signum in QUICK_STOPS:
                signal.signal(signum, hook.captured.handle)
        self._make_up()

    def opened(self) -> None:
        """Check again: uvicorn-worker's handler may have run in the last turn of the loop."""
        self._make_up()

    def _make_up(self) -> None:
        """Handle a SIGQUIT that uvicorn-worker's handler has taken before these were set."""
        if not (self._worker.alive or self._hook.server.should_exit):
            self._hook.captured.handle(signal.SIGQUIT, None)
