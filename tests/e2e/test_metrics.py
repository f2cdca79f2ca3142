"""The scrape of a real server shows what its client knows, at every stage of a drain."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from support.client import get
from support.polling import wait_until
from support.ports import free_port
from support.server import uvicorn
from websockets.sync.client import connect

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor
    from pathlib import Path

    from support.client import Response

APP = "e2e.metrics_app:app"


class Scrape:
    """The figures of one scrape."""

    def __init__(self, port: int, *, version: str = "1.1") -> None:
        response = get(port, "/metrics/", version=version)
        assert response.status == 200
        self.text = response.body.decode()

    def all(self, name: str, labels: str = "") -> list[float]:
        """Return the values of a metric, where its labels begin so."""
        name = re.escape(f"graceful_asgi_{name}{{{labels}" if labels else f"graceful_asgi_{name}")
        return [float(value) for value in re.findall(rf"^{name}.* (\S+)$", self.text, re.M)]

    def in_flight(self) -> dict[str, float]:
        """Return what is in flight, by its kind."""
        kinds = ("http", "websocket", "task")
        return {kind: sum(self.all("in_flight", f'kind="{kind}"')) for kind in kinds}

    def phase(self) -> str:
        (phase,) = re.findall(r'^graceful_asgi_phase{phase="(.*)"} 1.0$', self.text, re.M)
        return str(phase)


def test_the_scrape_shows_the_true_count_at_every_stage_of_a_drain(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    aside = free_port()
    env = {"APP_METRICS_PORT": str(aside), "GRACEFUL_WEBSOCKETS": "finish"}
    with (
        uvicorn(tmp_path, app=APP, env=env, lame_duck=0.1, grace=15) as server,
        ExitStack() as stack,
    ):
        requests = [beside.submit(get, server.port, "/hold") for _ in range(4)]
        server.wait_for("held", count=4)
        stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/ws"))
        server.wait_for("held", count=5)

        def count() -> dict[str, float]:
            """Requests in flight, as the client knows."""
            return {"http": sum(not r.done() for r in requests), "websocket": 1, "task": 0}

        def let_one_go() -> None:
            expected = count()["http"] - 1
            os.kill(server.pid, signal.SIGUSR1)
            wait_until(lambda: count()["http"] == expected, "an answer")

        serving = Scrape(server.port)
        assert (serving.phase(), serving.in_flight()) == ("serving", count())
        assert serving.all("drains_total") == [0]
        let_one_go()
        assert Scrape(server.port).in_flight() == count()

        os.kill(server.pid, signal.SIGHUP)  # a lame duck that lasts until SIGTERM
        server.wait_for(r"lame duck \(SIGHUP\)")
        lame_duck = Scrape(server.port)
        assert (lame_duck.phase(), lame_duck.in_flight()) == ("lame duck", count())
        assert lame_duck.all("drains_total") == [1]
        let_one_go()
        assert Scrape(server.port).in_flight() == count() == {"http": 2, "websocket": 1, "task": 0}

        server.signal(signal.SIGTERM)
        server.wait_for(r"draining \(")
        aside_shows = Scrape(aside)
        assert aside_shows.phase() == "draining"
        let_one_go()
        # In another thread than the server's: that may be about to count what its client has seen.
        wait_until(lambda: Scrape(aside).in_flight() == count(), "the true count")
        assert aside_shows.all("oldest_in_flight_age_seconds")[0] > 0
        assert 0 < aside_shows.all("drain_time_left_seconds")[0] <= 15
        let_one_go()
        wait_until(lambda: Scrape(aside).in_flight() == count(), "the true count")
        assert count() == {"http": 0, "websocket": 1, "task": 0}
        # 3 answers and 2 scrapes of its own since the drain began.
        wait_until(
            lambda: Scrape(aside).all("drain_work_total", 'outcome="completed"') == [5],
            "the true count of what has ended",
        )
        os.kill(server.pid, signal.SIGUSR1)
        assert server.wait() == 0
        assert "6 completed, 0 closed, 0 cancelled, 0 aborted" in server.log
        assert all(request.result().body == b"let go" for request in requests)


def test_a_parent_of_ours_has_the_figures_of_a_killed_worker_forgotten(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    directory = tmp_path / "metrics"
    directory.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(directory)}
    program = ("graceful_asgi", "run")
    with uvicorn(
        tmp_path, "--workers", "2", app=APP, env=env, program=program, lame_duck=0.1, grace=15
    ) as server:
        server.wait_for_workers(2)
        beside.submit(get, server.port, "/hold").add_done_callback(lambda cut: cut.exception())
        server.wait_for("held")
        wait_until(lambda: Scrape(server.port).in_flight()["http"] == 1, "its count")
        pids = {path.stem.rpartition("_")[2] for path in directory.glob("gauge_live*.db")}
        assert len(pids) == 2
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        server.wait_for("Application startup complete", count=4)
        wait_until(lambda: Scrape(server.port).in_flight()["http"] == 0, "no count of the dead")
        left = {path.stem.rpartition("_")[2] for path in directory.glob("gauge_live*.db")}
        assert left.isdisjoint(pids)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_two_workers_are_one_to_the_scrape(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    directory = tmp_path / "metrics"
    directory.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(directory)}
    with uvicorn(
        tmp_path, "--workers", "2", app=APP, env=env, ready=None, lame_duck=0.1, grace=15
    ) as server:
        server.wait_for_workers(2)
        requests: list[Future[Response]] = []
        for number in range(1, 7):
            requests.append(beside.submit(get, server.port, "/hold"))
            server.wait_for("held", count=number)
        wait_until(
            lambda: Scrape(server.port).in_flight() == {"http": 6, "websocket": 0, "task": 0},
            "the sum of both, a second later at the most",
        )
        pids = re.findall(r'phase{phase="serving",pid="(\d+)"} 1.0', Scrape(server.port).text)
        assert len(pids) == 2
        for pid in pids:
            os.kill(int(pid), signal.SIGHUP)
        wait_until(lambda: Scrape(server.port).all("drains_total") == [2], "both drain")
        assert Scrape(server.port).in_flight()["http"] == 6
        server.signal(signal.SIGTERM)
        server.wait_for(r"draining \(", count=2)
        for pid in pids:
            os.kill(int(pid), signal.SIGUSR2)
        assert all(request.result().body == b"let go" for request in requests)
        server.wait(20)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]  # theirs has no types
    for pid in pids:
        labels = {"phase": "stopped", "pid": pid}
        assert registry.get_sample_value("graceful_asgi_phase", labels) == 1
    assert registry.get_sample_value("graceful_asgi_in_flight", {"kind": "http"}) == 0
    completed = registry.get_sample_value(
        "graceful_asgi_drain_work_total", {"outcome": "completed"}
    )
    assert completed is not None
    assert completed >= 6
