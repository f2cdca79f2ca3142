"""Telling systemd how a service stands: `Notifier` speaks its protocol, announcers say what.

A service of `Type=notify` is said to be ready once it listens, and to be stopping once a stop has
come. It asks for more time only while its drain makes progress. See sd_notify(3).
"""

from __future__ import annotations

import math
import multiprocessing
import os
import socket
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .. import log
from .._diagnostics.watchdog import MARGIN
from ..event_loop import spawn
from ..phase import Phase
from ..report import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from .._core.runner import DrainRunner
    from ..phase import PhaseChange

VARIABLE: Final = "NOTIFY_SOCKET"

EXTENSION: Final = 10.0
"""Seconds of more time that are asked for at once."""

REPEAT: Final = 5.0
"""Seconds after which more is asked for, if there has been progress: well before they are over."""

STATUS_PERIOD: Final = 1.0
"""Seconds between two lines for `systemctl status`, at the least."""


class Notifier:
    """Sends systemd what it wants to know, each in one datagram.

    No method blocks or raises: what cannot be sent is said in the log once, and the service goes
    on. Safe from any thread.

    Args:
        address: what `NOTIFY_SOCKET` says: a path, or an abstract name that begins with `@`.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._has_failed = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self | None:
        """Return one for the socket that the environment names; None where it names none."""
        address = (os.environ if environ is None else environ).get(VARIABLE, "")
        if not address:
            return None
        if not address.startswith(("/", "@")):
            log.caution("%s=%r is not an address that is known here", VARIABLE, address)
            return None
        return cls(address)

    def ready(self) -> None:
        """Say that the service serves. Idempotent, to systemd."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the service has begun to stop."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for so many *seconds* from now, where fewer are left of what systemd allows."""
        self._send(f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * 1_000_000)}")

    def status(self, text: str) -> None:
        """Have `systemctl status` show a line."""
        self._send(f"STATUS={printable(text)}")

    def _send(self, message: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)
        except OSError as exc:
            if not self._has_failed:
                self._has_failed = True
                log.caution("systemd cannot be told %r: %s", message, exc)


class Course:
    """Tells systemd how a service comes on: each thing once, or as often as it is of use.

    Args:
        notifier: what systemd is told by.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._has_said_it_stops = False
        self._extend_at = self._status_at = -math.inf
        self._seen: object = None

    def hurry(self) -> None:
        """Let the next look show a line, however soon it comes."""
        self._status_at = -math.inf

    def look(
        self, now: float, *, status: str, stopping: bool, progress: object, left: float
    ) -> None:
        """Say what there is to say. Whoever calls may do so as often as it likes.

        Args:
            now: by a monotonic clock.
            status: a line for `systemctl status`.
            stopping: whether a stop has come.
            progress: anything that is another thing once there has been progress.
            left: seconds until the service is gone, at the longest.
        """
        if stopping and not self._has_said_it_stops:
            self._has_said_it_stops = True
            self._notifier.stopping()
        if now >= self._status_at:
            self._status_at = now + STATUS_PERIOD
            self._notifier.status(status)
        if stopping and now >= self._extend_at and progress != self._seen:
            self._seen, self._extend_at = progress, now + REPEAT
            self._notifier.extend(min(EXTENSION, left))


def announce(drainer: DrainRunner) -> Announcer | None:
    """Return what speaks for this server, where systemd listens. An attendant's maker."""
    if not _speaks_for_the_service():
        return None
    notifier = Notifier.from_env()
    return None if notifier is None else Announcer(drainer, notifier)


def _speaks_for_the_service() -> bool:
    """Say whether this server is the service: no worker of one, and no part of a larger program."""
    is_worker = multiprocessing.parent_process() is not None or "gunicorn.arbiter" in sys.modules
    return not is_worker and threading.current_thread() is threading.main_thread()


class Announcer:
    """Says how one server stands, from the listener's opening to the end. Lives on the loop."""

    def __init__(self, drainer: DrainRunner, notifier: Notifier) -> None:
        self._drainer = drainer
        self._notifier = notifier
        self._course = Course(notifier)
        self._running: object = None
        drainer.on_open.append(self._opened)

    def _opened(self) -> None:
        self._notifier.ready()
        self._notifier.status("serving")

    def phase_changed(self, change: PhaseChange) -> None:
        """Say it, and go on saying how the drain goes for as long as there is one."""
        self._course.hurry()
        self._look()
        if self._running is None and change.phase is Phase.LAME_DUCK:
            self._running = spawn(self._run)

    def close(self) -> None:
        """Say what it came to."""
        report = self._drainer.report()
        clean = "clean" if report.clean else "forced"
        self._notifier.status(f"{clean} after {report.elapsed:.1f} s ({report.reason})")
        self._drainer.on_open.remove(self._opened)

    async def _run(self) -> None:
        drainer = self._drainer
        with drainer.notifier.listening() as listener:
            while drainer.phase not in (Phase.SERVING, Phase.STOPPED):
                self._look()
                await listener.wait(STATUS_PERIOD)
        self._running = None

    def _look(self) -> None:
        drainer, report = self._drainer, self._drainer.report()
        ended = report.completed + report.cancelled + report.aborted
        self._course.look(
            drainer.now(),
            status=self._in_words(),
            stopping=drainer.stopping,
            progress=(drainer.phase, ended, len(drainer.in_flight)),
            left=drainer.whole_time_left() + MARGIN,
        )

    def _in_words(self) -> str:
        drainer = self._drainer
        if drainer.phase is Phase.SERVING:
            return "serving"
        left = drainer.time_left()
        more = f", {left:.0f} s left" if math.isfinite(left) else ", waiting for a stop"
        count = len(drainer.in_flight)
        return f"{drainer.phase.value} ({drainer.reason}): {count} in flight{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """How a service of several workers stands, as their parent sees it."""

    workers: int
    serving: int
    """How many of the workers serve."""
    in_flight: int
    ended: int
    """How much work has ended since the stop."""
    left: float
    """Seconds until the last worker is gone, at the longest."""


class ServiceAnnouncer:
    """Says how a service of several workers stands. For their parent: nothing runs here by itself.

    Args:
        notifier: what systemd is told by.
        wanted: with how many workers the service is ready.
    """

    def __init__(self, notifier: Notifier, *, wanted: int) -> None:
        self._notifier = notifier
        self._course = Course(notifier)
        self._wanted = wanted
        self._is_ready = False

    def look(self, state: ServiceState, *, stopping: bool, now: float) -> None:
        """Say what there is to say. Call it after whatever has happened, as often as you like."""
        if not (stopping or self._is_ready) and state.serving >= self._wanted:
            self._is_ready = True
            self._notifier.ready()
        how = "stopping" if stopping else "serving"
        self._course.look(
            now,
            status=(
                f"{how}: {state.serving} of {state.workers} workers, {state.in_flight} in flight"
            ),
            stopping=stopping,
            progress=(state.workers, state.in_flight, state.ended),
            left=state.left,
        )
