"""`Writer`: writes records to the log, escaped, as visible as the server's own, without a wait.

Once a `Writer` has been started, a thread writes the records. Then the code that logs never waits:
a pipe that nobody reads delays neither the listener close nor the orders to the workers.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import logging
import math
import sys
import threading
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from . import threads
from .event_loop import monotonic
from .text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.util import Finalize

WRITE_PERIOD: Final = 0.5
"""Seconds that the end of the process waits for the last lines to be written."""

CONSUME_PERIOD: Final = 2.0
"""Seconds that it then waits for the reader of a `QueueHandler`'s queue."""

_SILENCE: Final = 0.25
"""Seconds in which that reader takes no record, and so counts as gone."""

_LOOK_PERIOD: Final = 0.002
"""Seconds between two looks at its queue."""

_MOST_WAITING: Final = 10_000
"""The records that may wait for a log that nobody reads. More are dropped to bound the memory."""


class Writer:
    """Passes the records of *logger* to the program's handlers, in a thread while one runs.

    Every method is safe from any thread.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._followed: logging.Logger | None = None
        # Reentrant: a signal handler of the program may interrupt a thread that logs, and log.
        self._lock = threading.RLock()
        self._users = 0
        self._thread: threads.JobThread | None = None
        """The thread that writes; None while none runs."""
        self._ended = threading.Event()
        self._ended.set()
        self._at_exit_of_child: Finalize | None = None

    def follow(self, name: str) -> None:
        """Make our records as visible as those of the logger *name*, the server's. Idempotent.

        Where the program sets no level for our logger, the level of *name* is enough for our
        records. Where no handler would get our records, the handlers of *name* get them: uvicorn
        sets up none for the root logger. Both are looked up for each record, because a program may
        set up its logging later. No logger is changed.
        """
        self._followed = logging.getLogger(name)

    def is_enabled_for(self, level: int) -> bool:
        """Return True if a record of *level* would be visible."""
        if logging.root.manager.disable >= level:
            return False
        own = self._logger.getEffectiveLevel()
        if self._logger.level or self._followed is None:
            return level >= own
        theirs = self._followed.getEffectiveLevel()
        return level >= (min(theirs, own) if self._has_handlers() else theirs)

    def start(self) -> None:
        """Write in a thread, until `stop` has been called as often as `start`.

        Call it at startup: at a stop the system may have no thread to give. If it has none now, the
        code that logs writes the record itself.
        """
        with self._lock:
            self._users += 1
            if self._thread is not None:
                return
            thread = threads.JobThread(
                is_done=self._is_done, lost=self._write_here, forget=self._forget
            )
            if not thread.start():
                return
            self._thread, self._ended = thread, threading.Event()
            atexit.unregister(self.flush)
            atexit.register(self.flush)  # runs before functions that were registered earlier
            self._flush_at_exit_of_child()

    def _flush_at_exit_of_child(self) -> None:
        """Flush at the end of a child that multiprocessing has forked: it runs no atexit function.

        It ends by `os._exit`, after the finalizers of multiprocessing (`Popen._launch`).
        """
        processes = sys.modules.get("multiprocessing.process")
        if processes is not None and processes.parent_process() is not None:
            from multiprocessing.util import Finalize

            if self._at_exit_of_child is None or not self._at_exit_of_child.still_active():
                self._at_exit_of_child = Finalize(None, self.flush, exitpriority=-1)  # the last

    def stop(self) -> None:
        """End the thread once it has written everything. Does not wait for that."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if not self._users and self._thread is not None:
                self._thread.wake()
                threads.resume()

    def write(self, record: logging.LogRecord) -> None:
        """Write *record*, or pass it to the thread. Raises nothing."""
        if self._thread is not None:
            # Filters and formatters may read context variables, as structlog's do.
            job = partial(contextvars.copy_context().run, self._deliver, record)
            with self._lock:
                if (thread := self._thread) is not None:
                    if thread.waiting() < _MOST_WAITING:
                        thread.give(job)
                    return
        self._deliver(record)

    def flush(self, *, write: float = WRITE_PERIOD, consume: float = CONSUME_PERIOD) -> bool:
        """Wait until every record so far has reached its sink. Blocks: do not call it on a loop.

        That includes the queues of `logging.handlers.QueueHandler`: the thread of their listener
        ends with the process, and the records that it has not taken by then are lost.

        Args:
            write: seconds for the thread that writes, at the most.
            consume: seconds for the readers of queues, at the most.

        Returns:
            False if some of the records may be lost.
        """
        if not self.is_written(write):
            return False
        deadline = monotonic() + consume
        return all([_is_consumed(handler, deadline) for handler in self._handlers()])

    def is_written(self, seconds: float = WRITE_PERIOD) -> bool:
        """Wait until the thread has written every record so far, *seconds* at the most.

        Returns:
            False if the log blocks. `logging.shutdown`, which Python calls at its end, would wait
            for it without any limit.
        """
        with self._lock:
            written = self._ended
            if self._thread is not None:
                written = threading.Event()
                self._thread.give(written.set)
        return written.wait(seconds)

    def _is_done(self) -> bool:
        """Return True if the thread has to end, after each record. In the thread."""
        if self._users:
            return False
        # Under the lock: `write` passes a record to the thread or finds none, never one that ends.
        # Nobody may write past a thread that has records: their order would change.
        with self._lock:
            if self._users or self._thread is None or self._thread.waiting():
                return False
            self._thread = None
            self._ended.set()
            return True

    def _write_here(self) -> None:
        """Write the records that wait, where the thread cannot be had again after a fork."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.do_here()
            self._ended.set()

    def _forget(self) -> None:
        """Note that this is a forked child: the thread and the servers are its parent's."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._users, self._thread = 0, None
        self._ended = threading.Event()
        self._ended.set()

    def _deliver(self, record: logging.LogRecord) -> None:
        try:
            if self._followed is None or self._has_handlers():
                self._logger.handle(record)
            elif passed := self._logger.filter(record):
                # From Python 3.12 on a filter may return another record.
                self._followed.handle(passed if isinstance(passed, logging.LogRecord) else record)
        except BaseException:  # a filter or a handler may raise anything, SystemExit included
            note_failure()

    def _has_handlers(self) -> bool:
        # `dictConfig` disables every logger that it does not name, unless it is told not to. A
        # program that keeps its server's logger does not mean to lose the lines about the drain.
        return self._logger.hasHandlers() and not self._logger.disabled

    def _handlers(self) -> Iterator[logging.Handler]:
        source: logging.Logger | None = self._logger
        if self._followed is not None and not self._has_handlers():
            source = self._followed
        while source is not None:
            yield from source.handlers
            source = source.parent if source.propagate else None


def note_failure() -> None:
    """Print the exception that is being handled, where `logging` prints those of handlers."""
    if logging.raiseExceptions:
        with contextlib.suppress(Exception):  # stderr may be closed
            traceback.print_exc()


def _is_consumed(handler: logging.Handler, deadline: float) -> bool:
    """Wait until the queue of a `QueueHandler` has been read; return False if it was not."""
    handlers = sys.modules.get("logging.handlers")  # not imported for this
    if handlers is None or not isinstance(handler, handlers.QueueHandler):
        return True
    try:
        waiting, looked_at, silent = _waiting(handler.queue), monotonic(), 0.0
        while waiting and looked_at < deadline:
            if silent > _SILENCE:
                return False
            time.sleep(_LOOK_PERIOD)  # a queue that is read wakes nobody but its reader
            still, now = _waiting(handler.queue), monotonic()
            # Not more for one look: the reader stands still while the process or the machine does.
            silent += min(now - looked_at, 5 * _LOOK_PERIOD)
            if still != waiting:
                waiting, silent = still, 0.0
            looked_at = now
    except (AttributeError, NotImplementedError, OSError, ValueError):
        return True  # a queue of another kind, or a closed one
    return not waiting


def _waiting(records: Any) -> int:
    # `queue.Queue` counts a record until its listener has handled it; others until it is taken.
    count = getattr(records, "unfinished_tasks", None)
    return int(records.qsize() if count is None else count)


class Escaped(str):
    """A text in which nothing has to be escaped any more."""

    __slots__ = ()


class _Argument:
    """An argument of a message: formatted when it is logged, and escaped."""

    __slots__ = ("_repr", "_str")

    def __init__(self, value: object) -> None:
        self._str, self._repr = _text_of(value, str), _text_of(value, repr)

    def __str__(self) -> str:
        return self._str

    def __repr__(self) -> str:
        return self._repr


def escaped(value: object) -> object:
    """Return *value* as an argument of a message, with every terminal command escaped."""
    return value if isinstance(value, (int, float, Escaped)) else _Argument(value)


def _text_of(value: object, convert: Callable[[object], str]) -> str:
    try:
        return printable(convert(value))
    except Exception:  # the `__repr__` of an app's object may be broken
        return f"<{type(value).__name__}>"


def plain(value: Any) -> Any:
    """Return a figure for a formatter to print: a text is escaped, an infinite number is None."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no infinity
    return value


def traceback_of(exc: BaseException) -> str:
    """Return the traceback of *exc* and of its causes, with the text of each exception escaped."""
    parts: list[str] = []
    seen: list[BaseException] = []
    shown: BaseException | None = exc
    while shown is not None and shown not in seen:
        seen.append(shown)
        text = _text_of(shown, str)
        frames = "".join(traceback.format_tb(shown.__traceback__))
        name = type(shown).__qualname__
        if (module := type(shown).__module__) != "builtins":
            name = f"{module}.{name}"
        what = f"{name}: {text}" if text else name
        parts.append(f"Traceback (most recent call last):\n{frames}{what}")
        context = None if shown.__suppress_context__ else shown.__context__
        shown = shown.__cause__ or context
    return "\n\nThis exception led to the next one:\n\n".join(reversed(parts))
