"""Messages to systemd, on a socket of the test's own: when, how often, and from which process."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.asgi import Call, FakeAdapter, answer, http_scope, serving, with_lifespan
from support.command import run_python
from support.systemd import NotifySocket
from support.virtual_time import virtual_clock, virtual_time

from graceful_asgi import DrainPolicy, GracefulMiddleware
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._extensions import NOTIFY_SOCKET
from graceful_asgi._extensions.systemd import (
    EXTENSION,
    REPEAT,
    STATUS_PERIOD,
    ServerAnnouncer,
    ServiceAnnouncer,
    SystemdNotifier,
    WorkersState,
    announce_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from graceful_asgi.types import Receive, Scope, Send

LONG = DrainPolicy(lame_duck_period=5, grace_period=60, cancel_period=2, cleanup_period=5)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    with NotifySocket(str(tmp_path / "notify")) as listening:
        monkeypatch.setenv(NOTIFY_SOCKET, listening.address)
        yield listening


# The protocol


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract name"])
def test_each_word_is_one_datagram(tmp_path: Path, abstract: bool) -> None:
    address = f"@graceful-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with NotifySocket(address) as listening:
        notifier = SystemdNotifier.from_env({NOTIFY_SOCKET: address})
        assert notifier is not None
        notifier.ready()
        notifier.stopping()
        notifier.extend(1.5)
        notifier.status("two\nlines")
        assert listening.received() == [
            "READY=1",
            "STOPPING=1",
            "EXTEND_TIMEOUT_USEC=1500000",
            r"STATUS=two\nlines",
        ]


@pytest.mark.parametrize("value", [None, "", "vsock:2:1234", "relative"])
def test_without_an_address_that_is_known_nobody_is_told(value: str | None) -> None:
    assert SystemdNotifier.from_env({} if value is None else {NOTIFY_SOCKET: value}) is None


def test_a_socket_that_nobody_listens_on_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = SystemdNotifier(str(tmp_path / "nobody"))
    notifier.ready()
    notifier.stopping()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'READY=1' cannot be sent to systemd" in record.getMessage()


def test_nothing_waits_for_a_reader_that_is_slow(
    systemd: NotifySocket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = SystemdNotifier(systemd.address)
    for _ in range(2000):
        notifier.ready()
    assert len(caplog.records) == 1
    assert 0 < len(systemd.received()) < 2000


# What is said of a drain


class Service:
    """A server that speaks to systemd."""

    def __init__(self, policy: DrainPolicy = LONG) -> None:
        self.drainer = DrainRunner(policy, clock=virtual_clock())
        self.drainer.bind(anew=True)
        announcer = announce_server(self.drainer)
        assert announcer is not None
        self.announcer: ServerAnnouncer = announcer
        self.drainer.notifier.server_events.append(announcer)

    async def work(self, seconds: float) -> None:
        with anyio.CancelScope(), self.drainer.track(f"{seconds} s"):
            await anyio.sleep(seconds)

    @asynccontextmanager
    async def draining(self, systemd: NotifySocket, *, work: float) -> AsyncIterator[Service]:
        """Drain in the background of the block, with one work of so many seconds in flight."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.work, work)
            await anyio.wait_all_tasks_blocked()
            self.drainer.stop("SIGTERM")
            tasks.start_soon(self.drain, systemd)
            yield self

    async def drain(self, systemd: NotifySocket) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, systemd)
            await self.drainer.drain(FakeAdapter(self.drainer))
            self.drainer.finish()
            tasks.cancel_scope.cancel()


async def listen(systemd: NotifySocket) -> None:
    """Take what is said as it comes: the kernel keeps no more than ten datagrams."""
    while True:
        systemd.received()
        await anyio.sleep(0.5)


@pytest.mark.anyio
async def test_a_service_is_ready_when_it_listens_and_stopping_at_the_stop(
    systemd: NotifySocket,
) -> None:
    service = Service()
    await anyio.sleep(1)
    assert systemd.received() == []
    service.drainer.notifier.server_opened()
    assert systemd.received() == ["READY=1", "STATUS=serving"]
    service.drainer.stop("SIGTERM")
    await service.drain(systemd)
    assert systemd.told("STOPPING") == ["1"]
    assert systemd.told("READY") == ["1"]
    assert systemd.told("STATUS")[-1] == "clean after 5.0 s (SIGTERM)"


@pytest.mark.anyio
async def test_a_drain_that_is_only_begun_is_not_a_stop(systemd: NotifySocket) -> None:
    service = Service()
    service.drainer.begin("drain endpoint")
    with anyio.move_on_after(30):
        await listen(systemd)
    assert systemd.told("STOPPING") == []
    assert systemd.told("EXTEND_TIMEOUT_USEC") == []
    status = systemd.told("STATUS")
    assert status[-1] == "lame duck (drain endpoint): 0 in flight, waiting for a stop"
    service.drainer.resume()
    await anyio.sleep(5)
    assert systemd.told("STATUS")[-1] == "serving"
    service.drainer.begin("again")
    await anyio.sleep(1)
    service.drainer.stop("SIGTERM")
    await service.drain(systemd)
    assert systemd.told("STOPPING") == ["1"]


@pytest.mark.anyio
async def test_more_time_is_asked_for_again_and_again_while_work_ends(
    systemd: NotifySocket,
) -> None:
    service = Service()
    async with anyio.create_task_group() as tasks:
        for number in range(1, 20):
            tasks.start_soon(service.work, number * 3)
        await anyio.wait_all_tasks_blocked()
        service.drainer.stop("SIGTERM")
        began = service.drainer.now()
        await service.drain(systemd)
        took = service.drainer.now() - began
    asked = [int(value) / 1e6 for value in systemd.told("EXTEND_TIMEOUT_USEC")]
    assert took == pytest.approx(57, abs=0.1)
    assert all(seconds <= EXTENSION for seconds in asked)
    assert len(asked) >= took / REPEAT - 1, "again before the former time is over"
    assert len(asked) <= took / REPEAT + 2, "and no more often than that"


@pytest.mark.anyio
async def test_no_more_time_is_asked_for_while_nothing_moves(systemd: NotifySocket) -> None:
    async with Service().draining(systemd, work=50):
        await anyio.sleep(11)  # the last phase change was at 5
        asked = len(systemd.told("EXTEND_TIMEOUT_USEC"))
        await anyio.sleep(35)
        assert len(systemd.told("EXTEND_TIMEOUT_USEC")) == asked
    assert 1 <= asked <= 2


@pytest.mark.anyio
async def test_a_client_that_goes_on_sending_requests_is_no_progress(
    systemd: NotifySocket,
) -> None:
    """One request hangs. What others do on their open connections keeps no service from its end."""
    async with Service().draining(systemd, work=50) as service:
        await anyio.sleep(11)
        asked = len(systemd.told("EXTEND_TIMEOUT_USEC"))
        for _ in range(35):
            await service.work(1)
        assert len(systemd.told("EXTEND_TIMEOUT_USEC")) == asked


@pytest.mark.anyio
async def test_no_more_is_asked_for_than_the_hard_deadline_leaves(systemd: NotifySocket) -> None:
    policy = DrainPolicy(lame_duck_period=1, grace_period=1, cancel_period=1, cleanup_period=1)
    service = Service(policy)
    service.drainer.stop("SIGTERM")
    await service.drain(systemd)
    (asked, *_) = systemd.told("EXTEND_TIMEOUT_USEC")
    assert int(asked) == pytest.approx(4_500_000, abs=10_000)


@pytest.mark.anyio
async def test_the_status_counts_and_is_not_said_too_often(systemd: NotifySocket) -> None:
    async with Service().draining(systemd, work=20) as service:
        for _ in range(100):
            await anyio.sleep(0.1)
            service.drainer.notifier.wake()
        said = systemd.told("STATUS")
    assert "draining (SIGTERM): 1 in flight, 59 s left" in said
    assert len(said) < 15


@pytest.mark.anyio
async def test_a_server_that_is_not_known_is_ready_after_its_startup(systemd: NotifySocket) -> None:
    middleware = GracefulMiddleware(
        with_lifespan(answer), drainer=as_drainer(DrainRunner(LONG, clock=virtual_clock()))
    )
    async with serving(middleware) as server:
        assert systemd.told("READY") == ["1"]
        await server.shut_down()
    assert systemd.told("STOPPING") == ["1"]


@pytest.mark.anyio
async def test_a_server_that_is_not_known_and_sends_no_lifespan_is_ready_at_its_first_request(
    systemd: NotifySocket,
) -> None:
    middleware = GracefulMiddleware(
        answer, drainer=as_drainer(DrainRunner(LONG, clock=virtual_clock()))
    )
    for _ in range(2):
        assert (await Call(middleware, http_scope()).run()).status == 200
    assert systemd.told("READY") == ["1"]


@pytest.mark.anyio
async def test_of_a_server_that_does_not_start_nothing_is_sent(systemd: NotifySocket) -> None:
    """A start that fails is no drain that was clean."""

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    middleware = GracefulMiddleware(fails, policy=LONG)
    await Call(middleware, {"type": "lifespan", "state": {}}, {"type": "lifespan.startup"}).run()
    assert systemd.received() == []


# Who speaks


def test_nobody_speaks_where_systemd_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NOTIFY_SOCKET, raising=False)
    assert announce_server(DrainRunner()) is None


def test_a_server_in_a_thread_does_not_speak_for_its_program(systemd: NotifySocket) -> None:
    made: list[object] = []
    thread = threading.Thread(target=lambda: made.append(announce_server(DrainRunner())))
    thread.start()
    thread.join()
    assert made == [None]


def test_a_worker_does_not_speak_for_its_parent() -> None:
    ended = run_python(
        """
        import multiprocessing, os
        os.environ["NOTIFY_SOCKET"] = "@somebody"
        from graceful_asgi._core.runner import DrainRunner
        from graceful_asgi._extensions.systemd import announce_server

        def worker():
            print(announce_server(DrainRunner()) is None, flush=True)

        print(announce_server(DrainRunner()) is not None, flush=True)
        process = multiprocessing.get_context("fork").Process(target=worker)
        process.start()
        process.join()
        """
    )
    assert ended.stdout == "True\nTrue\n", ended.stderr


@pytest.mark.anyio
async def test_a_socket_that_has_gone_shortens_no_drain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    monkeypatch.setenv(NOTIFY_SOCKET, str(tmp_path / "gone"))
    service = Service()
    service.drainer.notifier.server_opened()
    service.drainer.stop("SIGTERM")
    await service.drainer.drain(FakeAdapter(service.drainer))
    service.drainer.finish()
    assert "clean after 5.0 s" in caplog.text
    assert caplog.text.count("cannot be sent to systemd") == 1


# A service of several workers


class Parent:
    """A parent of two workers that notifies systemd."""

    def __init__(self, systemd: NotifySocket) -> None:
        self._systemd = systemd
        self._announcer = ServiceAnnouncer(SystemdNotifier(systemd.address), wanted=2)
        self._now, self._read = 0.0, 0

    def notifications(
        self, serving: int, *, stopping: bool, unfinished: int = 3, after: float = 0
    ) -> list[str]:
        """Update *after* so many seconds; return the messages, but for the status lines."""
        self._now += after
        state = WorkersState(
            workers=2, serving=serving, in_flight=3, unfinished=unfinished, left=7.0
        )
        self._announcer.update(state, stopping=stopping, now=self._now)
        words = self._systemd.received()[self._read :]
        self._read += len(words)
        return [word for word in words if not word.startswith("STATUS=")]


def test_a_service_is_ready_once_all_of_its_workers_serve(systemd: NotifySocket) -> None:
    parent = Parent(systemd)
    assert parent.notifications(1, stopping=False) == []
    assert parent.notifications(2, stopping=False) == ["READY=1"]
    assert parent.notifications(1, stopping=False) == parent.notifications(2, stopping=False) == []


def test_a_service_that_was_stopped_as_it_started_is_not_ready_any_more(
    systemd: NotifySocket,
) -> None:
    parent = Parent(systemd)
    assert parent.notifications(1, stopping=True)[0] == "STOPPING=1"
    assert "READY=1" not in parent.notifications(2, stopping=True, after=STATUS_PERIOD)


def test_a_service_asks_for_more_time_only_while_its_workers_get_on(systemd: NotifySocket) -> None:
    parent = Parent(systemd)
    more = ["EXTEND_TIMEOUT_USEC=7000000"]  # no more than is left
    assert parent.notifications(2, stopping=True)[1:] == more
    assert parent.notifications(2, stopping=True, unfinished=2, after=REPEAT - 1) == []
    assert parent.notifications(2, stopping=True, unfinished=2, after=1) == more
    assert parent.notifications(2, stopping=True, unfinished=2, after=REPEAT) == []


def test_an_answer_of_a_worker_that_is_older_than_the_stop_hides_no_progress(
    systemd: NotifySocket,
) -> None:
    parent = Parent(systemd)
    more = ["EXTEND_TIMEOUT_USEC=7000000"]
    assert parent.notifications(2, stopping=True, unfinished=1)[1:] == more
    assert parent.notifications(2, stopping=True, unfinished=9, after=REPEAT) == []
    assert parent.notifications(2, stopping=True, unfinished=8, after=1) == more
