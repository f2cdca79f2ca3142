"""What is particular to a uvicorn server that runs in a gunicorn worker (uvicorn-worker).

gunicorn's parent tells a worker to stop by SIGTERM (at TERM, HUP, TTOU) or, where it was itself
told to hurry (INT, QUIT, or one of them after TERM), by SIGQUIT. uvicorn-worker makes nothing of
that one: the parent waits for `graceful_timeout`, and kills. Here both begin a drain.

All that is touched of gunicorn's is named in this module, and has a test that fails when it moves.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol, cast

from .signals import QUICK_STOPS, CapturedSignals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..phase import PhaseChange
    from .touchpoints import Server


class WorkerConfig(Protocol):
    """`Worker.cfg`: gunicorn's settings. Read only."""

    graceful_timeout: float
    """Seconds from the stop until the parent kills what is left."""
    address: Sequence[object]
    """Where it listens; a number is a descriptor that came from outside."""
    reuse_port: bool
    """Whether each worker has a socket of its own, on one port."""


class GunicornWorker(Protocol):
    """`gunicorn.workers.base.Worker`."""

    cfg: WorkerConfig
    alive: bool
    """False once uvicorn-worker's own handler has heard of a quick stop. Nobody looks at it."""
    ppid: int


def worker_of(server: Server) -> GunicornWorker | None:
    """Return the gunicorn worker that *server* runs in, or None. Imports nothing.

    uvicorn-worker has the server call the worker's own `callback_notify` for the heartbeat.
    """
    module: Any = sys.modules.get("gunicorn.workers.base")
    callback = getattr(server.config, "callback_notify", None)
    worker = getattr(callback, "__self__", None)
    if module is None or not isinstance(worker, module.Worker):
        return None
    return cast("GunicornWorker", worker)


def shares_sockets_with_siblings_only(worker: GunicornWorker) -> bool:
    """Say whether all who have the listening sockets are children of the worker's parent.

    Not where that one got them from systemd or from a gunicorn before it (USR2), which it says in
    the environment it was started with. Where that is not to be read the answer is no.
    """
    if worker.cfg.reuse_port or any(isinstance(place, int) for place in worker.cfg.address):
        return False
    if "setproctitle" in sys.modules:  # it writes over that environment
        return False
    try:
        with open("/proc/self/environ", "rb") as file:
            names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0")}
    except OSError:
        return False
    return names.isdisjoint((b"LISTEN_FDS", b"GUNICORN_FD"))


class QuickStopHandlers:
    """Has a hooked server take SIGQUIT as it takes SIGINT. A worker serves in its main thread.

    uvicorn-worker's own handler only sets a flag that nobody reads. These are plain handlers, as
    uvicorn's are: one that the event loop runs is not called while the loop is blocked.
    """

    def __init__(self, server: Server, worker: GunicornWorker) -> None:
        self._server = server
        self._worker = worker
        self._captured = server._captured_signals
        if isinstance(self._captured, CapturedSignals) and (
            threading.current_thread() is threading.main_thread()
        ):
            for signum in QUICK_STOPS:
                signal.signal(signum, self._captured.handle)
        self._make_up()

    def opened(self) -> None:
        """Look once more: uvicorn-worker's handler may have run at the last turn of the loop."""
        self._make_up()

    def phase_changed(self, change: PhaseChange) -> None:
        """Change nothing."""

    def closed(self) -> None:
        """Change nothing: the worker's process ends."""

    def _make_up(self) -> None:
        """Take a SIGQUIT that went to the handler before this one."""
        if isinstance(self._captured, CapturedSignals) and not (
            self._worker.alive or self._server.should_exit
        ):
            self._captured.handle(signal.SIGQUIT, None)
