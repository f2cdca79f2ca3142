"""Sends systemd the state of a service: ready, stopping, a status line, more time (sd_notify(3)).

A service of `Type=notify` is ready once it listens, and is stopping once a stop has come. It asks
for more time only while its drain makes progress: a service that hangs ends when `TimeoutStopSec`
is over.
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
from .._core.server_adapter import ServerEvents
from .._diagnostics.watchdog import MARGIN
from ..event_loop import spawn
from ..phase import Phase
from ..text import printable
from . import NOTIFY_SOCKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from .._core.runner import DrainRunner
    from ..phase import PhaseChange

EXTENSION: Final = 10.0
"""Seconds of more time in one request."""

REPEAT: Final = 5.0
"""Seconds from one request for more time to the next: well before the first is used up."""

STATUS_PERIOD: Final = 1.0
"""Seconds between two status lines, at the least."""


class SystemdNotifier:
    """Sends systemd its messages, each in one datagram.

    No method blocks or raises. A message that cannot be sent is logged, once, and the service goes
    on. Safe from any thread.

    Args:
        address: the value of `NOTIFY_SOCKET`: a path, or an abstract name that begins with `@`.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._has_failed = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self | None:
        """Return a notifier for the socket that the environment names; None if it names none."""
        address = (os.environ if environ is None else environ).get(NOTIFY_SOCKET, "")
        if not address:
            return None
        if not address.startswith(("/", "@")):
            log.caution(
                "systemd is not notified: %s=%r is not the address of a socket",
                NOTIFY_SOCKET,
                address,
            )
            return None
        return cls(address)

    def ready(self) -> None:
        """Send that the service serves. systemd ignores a second message."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Send that the service has begun to stop."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for *seconds* from now on. systemd ignores it if its own timeout is later."""
        self._send(f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * 1_000_000)}")

    def status(self, text: str) -> None:
        """Send the line that `systemctl status` shows."""
        self._send(f"STATUS={printable(text)}")

    def _send(self, message: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)
        except OSError as exc:
            if not self._has_failed:
                self._has_failed = True
                log.caution("%r cannot be sent to systemd: %s", message, exc)


class StopReporter:
    """Sends systemd the progress of a service: each message once, or as often as it is of use."""

    def __init__(self, notifier: SystemdNotifier) -> None:
        self._notifier = notifier
        self._has_sent_stopping = False
        self._extend_at = self._status_at = -math.inf
        self._seen: tuple[Phase | None, float] = None, math.inf
        """The phase and the unfinished work at the last request for more time."""

    def hurry(self) -> None:
        """Send a status line at the next update, however soon that is."""
        self._status_at = -math.inf

    def update(
        self,
        now: float,
        *,
        status: str,
        stopping: bool,
        phase: Phase | None,
        unfinished: int,
        left: float,
    ) -> None:
        """Send what is new at *now*, by a monotonic clock. Call it as often as you like.

        *phase* is None where there are several drains. *unfinished* is how much of what was in
        flight when the drain began still is. It is progress when less is left: a client that goes
        on sending requests is none. *left* are the seconds until the service is gone, at the most.
        """
        if stopping and not self._has_sent_stopping:
            self._has_sent_stopping = True
            self._notifier.stopping()
        if now >= self._status_at:
            self._status_at = now + STATUS_PERIOD
            self._notifier.status(status)
        if not stopping:
            return
        is_progress = unfinished < self._seen[1] or phase is not self._seen[0]
        if is_progress and now >= self._extend_at:
            self._seen, self._extend_at = (phase, unfinished), now + REPEAT
            self._notifier.extend(min(EXTENSION, left))
        elif not is_progress:
            # If it is more than last time, the last number was older: workers answer a ping once a
            # second.
            self._seen = phase, unfinished


def unfinished(drainer: DrainRunner) -> int:
    """Return how much of what was in flight when the drain began is still in flight."""
    began = drainer.state.began
    return sum(work.began <= began for work in tuple(drainer.in_flight))


def announce_server(drainer: DrainRunner) -> ServerAnnouncer | None:
    """Return the extension that sends systemd this server's state; None if it is not needed."""
    if not _is_the_service():
        return None
    notifier = SystemdNotifier.from_env()
    return None if notifier is None else ServerAnnouncer(drainer, notifier)


def _is_the_service() -> bool:
    """Return False for a worker of a service, and for a server in a thread of a program."""
    is_worker = multiprocessing.parent_process() is not None or "gunicorn.arbiter" in sys.modules
    return not is_worker and threading.current_thread() is threading.main_thread()


class ServerAnnouncer(ServerEvents):
    """Sends systemd the state of one server, from its start to its end. Lives on the event loop."""

    def __init__(self, drainer: DrainRunner, notifier: SystemdNotifier) -> None:
        self._drainer = drainer
        self._notifier = notifier
        self._reporter = StopReporter(notifier)
        self._running: object = None

    def opened(self) -> None:
        """Send that the service is ready."""
        self._notifier.ready()
        self._notifier.status("serving")

    def phase_changed(self, change: PhaseChange) -> None:
        """Send the new phase, and go on with the status for as long as there is a drain."""
        self._reporter.hurry()
        self._update()
        if self._running is None and change.phase is Phase.LAME_DUCK:
            self._running = spawn(self._run)

    def closed(self) -> None:
        """Send the result, if there was a drain: the server may have failed to start."""
        if self._drainer.phase is not Phase.STOPPED:
            return
        report = self._drainer.report()
        clean = "clean" if report.clean else "forced"
        self._notifier.status(f"{clean} after {report.elapsed:.1f} s ({report.reason})")

    async def _run(self) -> None:
        drainer = self._drainer
        with drainer.notifier.listening() as wakeup:
            while drainer.phase not in (Phase.SERVING, Phase.STOPPED):
                self._update()
                await wakeup.wait(STATUS_PERIOD)
        self._running = None

    def _update(self) -> None:
        drainer = self._drainer
        self._reporter.update(
            drainer.now(),
            status=self._status(),
            stopping=drainer.state.stopping,
            phase=drainer.phase,
            unfinished=unfinished(drainer),
            left=drainer.whole_time_left() + MARGIN,
        )

    def _status(self) -> str:
        drainer = self._drainer
        if drainer.phase is Phase.SERVING:
            return "serving"
        left = drainer.time_left()
        more = f", {left:.0f} s left" if math.isfinite(left) else ", waiting for a stop"
        count = len(drainer.in_flight)
        return f"{drainer.phase.value} ({drainer.state.reason}): {count} in flight{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersState:
    """The state of a service of several workers, as their parent sees it."""

    workers: int
    serving: int
    """The number of workers that serve, or have served."""
    in_flight: int
    unfinished: int
    """The part of the work in flight at the stop that is still in flight."""
    left: float
    """Seconds until the last worker is gone, at the longest."""


class ServiceAnnouncer:
    """Sends systemd the state of a service of several workers. For their parent, which calls it.

    The service is ready once *wanted* workers serve.
    """

    def __init__(self, notifier: SystemdNotifier, *, wanted: int) -> None:
        self._notifier = notifier
        self._reporter = StopReporter(notifier)
        self._wanted = wanted
        self._is_ready = False

    def update(self, state: WorkersState, *, stopping: bool, now: float) -> None:
        """Send what is new. Call it after anything has happened, as often as you like."""
        if not (stopping or self._is_ready) and state.serving >= self._wanted:
            self._is_ready = True
            self._notifier.ready()
        how = "stopping" if stopping else "serving"
        self._reporter.update(
            now,
            status=(
                f"{how}: {state.serving} of {state.workers} workers, {state.in_flight} in flight"
            ),
            stopping=stopping,
            phase=None,
            # The end of a worker is progress, even if nothing was in flight.
            unfinished=state.unfinished + state.workers,
            left=state.left,
        )
