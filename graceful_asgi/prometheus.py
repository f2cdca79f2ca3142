"""Metrics of a drain for Prometheus: `DrainCollector`. The one place for `prometheus_client`.

The figures are read at each scrape; no request pays for them. Where several processes share one
scrape (`PROMETHEUS_MULTIPROC_DIR`), `prometheus_client` reads files, and calls no custom collector.
There each process writes its figures into these files: every second, at each phase change, and when
it is scraped itself.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from . import log
from ._core.drainer import Drainer, runner_of
from ._core.server_adapter import ServerEvents
from .errors import MisuseError, naming_extra
from .event_loop import current_task, spawn
from .phase import Phase
from .report import Kind, Outcome

with naming_extra("prometheus", "graceful_asgi.prometheus"):
    from prometheus_client import Counter, Gauge
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.multiprocess import mark_process_dead
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from ._core.runner import DrainRunner
    from .phase import PhaseChange

WRITE_PERIOD: Final = 1.0
"""Seconds between two writes: the figures of another process may be as old as that."""

Mode = Literal["liveall", "livesum", "livemax", "livemin"]
"""The ways in which `prometheus_client` combines the gauges of live processes."""


@dataclass(frozen=True, slots=True)
class _Figure:
    """One metric: its name, its help text, and its label if it has one."""

    name: str
    meaning: str
    label: str = ""
    mode: Mode | None = None
    """None: a counter. Otherwise a gauge."""

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return the metric without values."""
        make = CounterMetricFamily if self.mode is None else GaugeMetricFamily
        return make(self.name, self.meaning, labels=self._labels())

    def shared(self) -> Counter | Gauge:
        """Return the object that writes the metric to where other processes read it."""
        if self.mode is None:
            return Counter(self.name, self.meaning, self._labels(), registry=None)
        return Gauge(
            self.name, self.meaning, self._labels(), registry=None, multiprocess_mode=self.mode
        )

    def _labels(self) -> list[str]:
        return [self.label] if self.label else []


PHASE: Final = _Figure(
    "graceful_asgi_phase", "1 for the phase that the server is in, 0 for others", "phase", "liveall"
)
IN_FLIGHT: Final = _Figure(
    "graceful_asgi_in_flight", "Work in flight now, by its kind", "kind", "livesum"
)
OLDEST: Final = _Figure(
    "graceful_asgi_oldest_in_flight_age_seconds",
    "Age of the work that has been in flight longest; 0 where there is none",
    mode="livemax",
)
DRAINS: Final = _Figure("graceful_asgi_drains_total", "Drains begun, those called off included")
WORK: Final = _Figure(
    "graceful_asgi_drain_work_total", "Work that ended during a drain, by its outcome", "outcome"
)
SERVER_ERRORS: Final = _Figure(
    "graceful_asgi_drain_server_errors_total",
    "Requests that completed during a drain with a server error of the app",
)
ELAPSED: Final = _Figure(
    "graceful_asgi_drain_elapsed_seconds",
    "Time since the drain began; 0 while serving",
    mode="livemax",
)
TIME_LEFT: Final = _Figure(
    "graceful_asgi_drain_time_left_seconds",
    "Time until work in flight is cancelled; +Inf where no stop has come",
    mode="livemin",
)
FIGURES: Final = (PHASE, IN_FLIGHT, OLDEST, DRAINS, WORK, SERVER_ERRORS, ELAPSED, TIME_LEFT)

Value = tuple[_Figure, str, float]
"""A metric, the value of its label, and its own value."""


def _values(runner: DrainRunner) -> Iterator[Value]:
    """Yield the figures of this moment, the scrape itself left out. Safe from any thread."""
    now = runner.statistics(leave_out=current_task())
    for phase in Phase:
        yield PHASE, phase.value, float(phase is now.phase)
    for kind in get_args(Kind):
        if kind != "lifespan":
            yield IN_FLIGHT, kind, now.kinds.get(kind, 0)
    yield OLDEST, "", 0.0 if now.oldest is None else now.oldest.age
    yield DRAINS, "", now.drains
    for outcome in get_args(Outcome):
        yield WORK, outcome, now.totals.get(outcome, 0)
    yield SERVER_ERRORS, "", now.total_server_errors
    yield ELAPSED, "", now.elapsed
    yield TIME_LEFT, "", now.time_left


def processes_share_a_scrape() -> bool:
    """Return True if `prometheus_client` combines several processes, by the environment."""
    # The same rule as its own: it reads the lower-case name as well.
    return bool({"PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"} & os.environ.keys())


def forget_process(pid: int) -> None:
    """Remove the gauges of a process that has ended from the shared scrape.

    For the parent of workers. Does nothing where processes do not share a scrape.
    """
    if processes_share_a_scrape():
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library has no types here


class DrainCollector(Collector):
    """Collects the figures of a drain with the other metrics of a registry.

    Register it once in each process: `REGISTRY.register(DrainCollector(drainer))`, where the app is
    made. The scrape itself is not counted as in flight where it is an async call on asyncio in the
    request's own task, as `prometheus_client.make_asgi_app()` is (not behind starlette's
    `BaseHTTPMiddleware`, which has a task of its own).

    Args:
        drainer: the drainer to read. Give the same one to the middleware (`drainer=`).

    Raises:
        MisuseError: (a `RuntimeError`) *drainer* is no `Drainer`.
    """

    def __init__(self, drainer: Drainer) -> None:
        if not isinstance(drainer, Drainer):
            raise MisuseError(
                f"DrainCollector({drainer!r}): give it the Drainer that the middleware has"
            )
        self._runner = runner_of(drainer)
        self._shared: _SharedFigures | None = None
        if processes_share_a_scrape():
            self._shared = _SharedFigures(self._runner)
            self._runner.notifier.server_events.append(self._shared)

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values: the registry checks their names."""
        return [figure.family() for figure in FIGURES]

    def collect(self) -> Iterable[Metric]:
        """Return the figures of this moment. Safe from any thread.

        Where several processes share a scrape they are written for `MultiProcessCollector`, and
        nothing is returned: that one returns them, if it is registered after this.
        """
        if self._shared is not None:
            self._shared.write()
            return []
        families = {figure: figure.family() for figure in FIGURES}
        for figure, label, value in _values(self._runner):
            families[figure].add_metric([label] if label else [], value)
        return families.values()


class _SharedFigures(ServerEvents):
    """Writes the figures of this process to files that the others read, while the server runs."""

    outlives_server = True

    def __init__(self, runner: DrainRunner) -> None:
        self._runner = runner
        self._metrics: dict[_Figure, Any] = {figure: figure.shared() for figure in FIGURES}
        self._counted: dict[tuple[_Figure, str], float] = {}
        """The sum that has been added to each counter so far."""
        self._lock = threading.Lock()
        self._open = False
        self._running: object = None

    def write(self) -> None:
        """Write the figures of this moment. Safe from any thread."""
        with self._lock:
            for figure, label, value in _values(self._runner):
                metric = self._metrics[figure].labels(label) if label else self._metrics[figure]
                if figure.mode is not None:
                    metric.set(value)
                else:  # a counter can only be added to
                    metric.inc(value - self._counted.get((figure, label), 0.0))
                    self._counted[figure, label] = value

    def opened(self) -> None:
        """Write from now on, on the event loop."""
        if not self._open:
            self._open = True
            self._running = spawn(self._run)

    def phase_changed(self, change: PhaseChange) -> None:
        """Write the new phase at once."""
        self._try_write()

    def closed(self) -> None:
        """Stop writing. The last figures are those of a server that has stopped."""
        self._open = False
        self._runner.notifier.wake()

    def _try_write(self) -> None:
        with log.caught("the metrics cannot be written; the server goes on"):
            self.write()

    async def _run(self) -> None:
        write_at = self._runner.now()
        with self._runner.notifier.listening() as listener:
            while self._open:
                if self._runner.now() >= write_at:
                    write_at = self._runner.now() + WRITE_PERIOD
                    self._try_write()
                await listener.wait(write_at - self._runner.now())
