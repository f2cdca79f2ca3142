"""The metrics: true at every moment of a drain, and counters that never go back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from prometheus_client import CollectorRegistry, generate_latest, make_asgi_app
from prometheus_client.registry import REGISTRY
from support.asgi import FakeAdapter, answer, http_scope, serving, with_lifespan
from support.command import run_python
from support.virtual_time import virtual_clock

from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware, MisuseError, Phase
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi.prometheus import DrainCollector

if TYPE_CHECKING:
    from support.asgi import Receive, Send

QUICK = DrainPolicy(lame_duck_period=0, grace_period=0.02, cancel_period=1)


class Scraped:
    """A drainer and a registry of its own that has it."""

    def __init__(self, policy: DrainPolicy | None = None) -> None:
        self.drainer = DrainRunner(policy, clock=virtual_clock())
        self.registry = CollectorRegistry()
        self.registry.register(DrainCollector(as_drainer(self.drainer)))

    def value(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"graceful_asgi_{name}", labels)
        assert value is not None, name
        return value

    def phase(self) -> str:
        (phase,) = (phase.value for phase in Phase if self.value("phase", phase=phase.value))
        return phase

    def works(self) -> dict[str, float]:
        names = ("completed", "closed", "cancelled", "aborted", "rejected")
        return {name: self.value("drain_work_total", outcome=name) for name in names}

    async def drain(self) -> None:
        self.drainer.stop("SIGTERM")
        await self.drainer.drain(FakeAdapter(self.drainer))
        self.drainer.finish()


def test_a_missing_extra_is_named_with_what_installs_it() -> None:
    ended = run_python(
        """
        import sys
        sys.modules["prometheus_client"] = None
        try:
            import graceful_asgi.prometheus
        except ImportError as error:
            print(error.name, error)
        """
    )
    assert ended.stdout == (
        "prometheus_client graceful_asgi.prometheus needs prometheus_client, which is not "
        "installed: pip install 'graceful-asgi[prometheus]'\n"
    )


@pytest.mark.parametrize("value", [None, 3, DrainRunner], ids=str)
def test_what_is_no_drainer_is_named(value: Any) -> None:
    with pytest.raises(MisuseError, match=r"DrainCollector\(.*the Drainer"):
        DrainCollector(value)


@pytest.mark.anyio
async def test_a_server_that_serves_shows_what_is_in_flight_by_its_kind() -> None:
    scraped = Scraped()
    assert scraped.phase() == "serving"
    assert scraped.value("in_flight", kind="task") == 0
    with scraped.drainer.track("one"), scraped.drainer.track("two"):
        assert scraped.value("in_flight", kind="task") == 2
        assert scraped.value("in_flight", kind="http") == 0
        assert scraped.value("oldest_in_flight_age_seconds") >= 0
    assert scraped.value("in_flight", kind="task") == 0
    assert scraped.value("drains_total") == 0
    assert scraped.value("drain_time_left_seconds") == math.inf


@pytest.mark.anyio
async def test_work_is_counted_by_how_it_ended_and_the_count_stays() -> None:
    scraped = Scraped(QUICK)

    begun = anyio.Event()

    async def ends() -> None:
        with scraped.drainer.track("ends"):
            await begun.wait()

    async def hangs() -> None:
        with anyio.CancelScope(), scraped.drainer.track("hangs"):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ends)
        tasks.start_soon(hangs)
        await anyio.wait_all_tasks_blocked()
        scraped.drainer.stop("SIGTERM")
        begun.set()
        await anyio.wait_all_tasks_blocked()
        await scraped.drain()
        tasks.cancel_scope.cancel()
    assert scraped.phase() == "stopped"
    works = {"completed": 1, "closed": 0, "cancelled": 1, "aborted": 0, "rejected": 0}
    assert scraped.works() == works
    assert scraped.value("drain_elapsed_seconds") > 0
    scraped.drainer.bind(anew=True)
    assert scraped.phase() == "serving"
    assert scraped.works() == works


@pytest.mark.anyio
async def test_counters_add_up_over_drains_that_were_called_off() -> None:
    scraped = Scraped()
    for number in range(1, 4):
        with scraped.drainer.track("before"):
            scraped.drainer.begin("test")
            assert scraped.phase() == "lame duck"
        assert scraped.works()["completed"] == number
        scraped.drainer.resume()
        assert scraped.works()["completed"] == number
        assert scraped.value("drains_total") == number
        with scraped.drainer.track("not in a drain"):
            pass
        assert scraped.works()["completed"] == number


@pytest.mark.anyio
async def test_server_errors_of_the_app_are_counted_over_all_drains() -> None:
    scraped = Scraped()

    async def raising(scope: Any, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    middleware = GracefulMiddleware(with_lifespan(raising), drainer=as_drainer(scraped.drainer))
    async with serving(middleware) as server:
        await server.get()
        assert scraped.value("drain_server_errors_total") == 0
        for number in (1, 2):
            scraped.drainer.begin("test")
            await server.get()
            scraped.drainer.resume()
            assert scraped.value("drain_server_errors_total") == number


async def scrape(scraped: Scraped, *, in_a_thread: bool) -> str:
    """Scrape an app behind the middleware by a request; return its figures of requests."""
    said: list[bytes] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if in_a_thread:
            said.append(await anyio.to_thread.run_sync(generate_latest, scraped.registry))
            await answer(scope, receive, send)
        else:
            await make_asgi_app(scraped.registry)(scope, receive, send)

    middleware = GracefulMiddleware(with_lifespan(app), drainer=as_drainer(scraped.drainer))
    async with serving(middleware) as server:
        request = {"type": "http.request", "body": b"", "more_body": False}
        call = await server.call(http_scope("/metrics"), request).run()
        said += [m["body"] for m in call.sent if m["type"] == "http.response.body"]
        await server.shut_down()
    lines = b"".join(said).decode().splitlines()
    (line,) = (line for line in lines if line.startswith('graceful_asgi_in_flight{kind="http"}'))
    return line.split()[-1]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_scrape_itself_is_not_counted_where_it_can_be_told() -> None:
    assert await scrape(Scraped(QUICK), in_a_thread=False) == "0.0"
    assert await scrape(Scraped(QUICK), in_a_thread=True) == "1.0"


def test_two_in_one_registry_are_refused() -> None:
    scraped = Scraped()
    with pytest.raises(ValueError, match="graceful_asgi_phase"):
        scraped.registry.register(DrainCollector(Drainer()))


def test_the_registry_that_everybody_uses_takes_it() -> None:
    collector = DrainCollector(Drainer())
    REGISTRY.register(collector)
    try:
        assert b"graceful_asgi_in_flight" in generate_latest()
    finally:
        REGISTRY.unregister(collector)


def test_the_names_are_prometheus_own_kind_of_names() -> None:
    text = generate_latest(Scraped().registry).decode()
    kinds = [line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE")]
    assert kinds == [
        ["graceful_asgi_phase", "gauge"],
        ["graceful_asgi_in_flight", "gauge"],
        ["graceful_asgi_oldest_in_flight_age_seconds", "gauge"],
        ["graceful_asgi_drains_total", "counter"],
        ["graceful_asgi_drain_work_total", "counter"],
        ["graceful_asgi_drain_server_errors_total", "counter"],
        ["graceful_asgi_drain_elapsed_seconds", "gauge"],
        ["graceful_asgi_drain_time_left_seconds", "gauge"],
    ]


def test_figures_for_other_processes_are_written_as_phases_change_and_at_a_scrape() -> None:
    ended = run_python(
        """
        import os, tempfile
        directory = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
        import anyio
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector
        from graceful_asgi import DrainPolicy
        from graceful_asgi._core.drainer import as_drainer
        from graceful_asgi._core.runner import DrainRunner
        from graceful_asgi._extensions.registry import start_extensions
        from graceful_asgi._core.server_adapter import PassiveAdapter
        from graceful_asgi.prometheus import DrainCollector

        drainer = DrainRunner(DrainPolicy(lame_duck_period=0))
        own, others = CollectorRegistry(), CollectorRegistry()
        own.register(DrainCollector(as_drainer(drainer)))
        MultiProcessCollector(own)
        MultiProcessCollector(others)

        def value(registry, name, **labels):
            return registry.get_sample_value(f"graceful_asgi_{name}", labels)

        async def main():
            drainer.bind()
            await start_extensions(drainer)
            drainer.notifier.server_opened()
            await anyio.wait_all_tasks_blocked()
            assert value(others, "in_flight", kind="task") == 0
            with drainer.track("work"):
                assert value(own, "in_flight", kind="task") == 1, "the scraped process is exact"
                for number in (1, 2):
                    drainer.begin("test")
                    await anyio.wait_all_tasks_blocked()
                    assert value(others, "drains_total") == number
                    drainer.resume()
                    await anyio.wait_all_tasks_blocked()
            pid = str(os.getpid())
            assert value(others, "phase", phase="serving", pid=pid) == 1
            drainer.stop("SIGTERM")
            await drainer.drain(PassiveAdapter())
            drainer.finish()
            await anyio.wait_all_tasks_blocked()
            assert value(others, "phase", phase="stopped", pid=pid) == 1
            assert value(others, "drains_total") == 3
            assert value(others, "drain_work_total", outcome="completed") == 0

        anyio.run(main)
        print("done")
        """
    )
    assert ended.stdout == "done\n", ended.stderr


def test_a_scrape_that_is_overtaken_by_another_one_takes_no_counter_back() -> None:
    ended = run_python(
        """
        import os, tempfile
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
        import threading
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector
        from graceful_asgi import DrainPolicy
        from graceful_asgi._core.drainer import as_drainer
        from graceful_asgi._core.runner import DrainRunner
        from graceful_asgi.prometheus import DrainCollector

        drainer = DrainRunner(DrainPolicy())
        collector = DrainCollector(as_drainer(drainer))
        look, others = drainer.statistics, []

        def look_and_be_overtaken(**options):
            seen = look(**options)
            if not others:
                others.append(threading.Thread(target=collector.collect))
                drainer.begin("test")
                others[0].start()
                others[0].join(0.3)  # it cannot end before this scrape has ended
            return seen

        drainer.statistics = look_and_be_overtaken
        collector.collect()
        others[0].join()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        print(registry.get_sample_value("graceful_asgi_drains_total"))
        """
    )
    assert ended.stdout == "1.0\n", ended.stderr
