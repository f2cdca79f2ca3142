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

from .quick_stops import QUICK_STOPS
from .signals import CapturedSignals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .touchpoints import Server


class WorkerConfig(Protocol):
    """`Worker.cfg`: gunicorn's settings. Read only."""

    graceful_timeout: float
    """Seconds from the stop until the parent kills what is left."""
    address: Sequence[object]
    """Where it listens; a number is a descriptor that came from outside."""
    reuse_port: bool
    """Whether each worker has a socket of its own, on one port."""


class Worker(Protocol):
    """`gunicorn.workers.base.Worker`."""

    cfg: WorkerConfig
    alive: bool
    """False once uvicorn-worker's own handler has heard of a quick stop. Nobody looks at it."""
    ppid: int


def worker_of(server: Server) -> Worker | None:
    """Return the gunicorn worker that *server* runs in, or None. Imports nothing.

    uvicorn-worker has the server call the worker's own `callback_notify` for the heartbeat.
    """
    module: Any = sys.modules.get("gunicorn.workers.base")
    callback = getattr(server.config, "callback_notify", None)
    worker = getattr(callback, "__self__", None)
    if module is None or not isinstance(worker, module.Worker):
        return None
    return cast("Worker", worker)


def shares_sockets_with_siblings_only(worker: Worker) -> bool:
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


def hear_quick_stops(server: Server, worker: Worker) -> Callable[[], None]:
    """Have a hooked server told of SIGQUIT as of SIGINT. A worker serves in its main thread.

    In the place of uvicorn-worker's own handler, which only sets a flag that nobody reads. A plain
    handler, as uvicorn's are: one that the event loop runs hears nothing while the loop is blocked.

    Returns what makes up for a SIGQUIT that the handler before this one was given. It is called
    here, and has to be called again when the event loop has gone round: that one runs there.
    """
    captured = server._captured_signals
    if isinstance(captured, CapturedSignals) and (
        threading.current_thread() is threading.main_thread()
    ):
        for signum in QUICK_STOPS:
            signal.signal(signum, captured.hear)

    def make_up() -> None:
        if isinstance(captured, CapturedSignals) and not (worker.alive or server.should_exit):
            captured.hear(signal.SIGQUIT, None)

    make_up()
    return make_up
