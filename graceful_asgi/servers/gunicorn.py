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

from .hurries import QUICK_STOPS
from .signals import CapturedSignals

if TYPE_CHECKING:
    from .touchpoints import Server


class WorkerConfig(Protocol):
    """`Worker.cfg`: gunicorn's settings. Read only."""

    graceful_timeout: float
    """Seconds from the stop until the parent kills what is left."""


class Worker(Protocol):
    """`gunicorn.workers.base.Worker`."""

    cfg: WorkerConfig
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


def hear_quick_stops(server: Server) -> None:
    """Have a hooked server told of SIGQUIT as of SIGINT. A worker serves in its main thread.

    In the place of uvicorn-worker's own handler, which only sets a flag that nobody reads. A plain
    handler, as uvicorn's are: one that the event loop runs hears nothing while the loop is blocked.
    """
    captured = server._captured_signals
    if isinstance(captured, CapturedSignals) and (
        threading.current_thread() is threading.main_thread()
    ):
        for signum in QUICK_STOPS:
            signal.signal(signum, captured.hear)
