"""The rules of counting that no server can show: whose fault it is, and when a wait ends."""

from __future__ import annotations

import errno
import select
import socket
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest
from support.polling import PATIENCE

from check.client.loading import plan
from graceful_asgi._check.client import run
from graceful_asgi._check.client.http1 import Request
from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.errors import CheckError, SetupError
from graceful_asgi._check.load import Load
from graceful_asgi._check.result.counts import LoadResult

if TYPE_CHECKING:
    from graceful_asgi._check.client.http1 import HttpConnection

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL])
async def test_what_we_have_run_out_of_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Not even after the signal: a server must not be blamed, nor excused, for our limits."""

    async def connect(host: str, port: int, *, within: float) -> HttpConnection:
        raise OSError(number, "no more of them")

    monkeypatch.setattr(run, "connect", connect)
    load = Load(LoadPlan(keep_alive_clients=1, fresh_clients=0), port=1)
    load.mark_signalled()
    with pytest.raises(SetupError, match="no more of them"):
        await load.run(until=anyio.sleep_forever, within=PATIENCE)


class StandsStill(run.Run):
    """Its process stands still before the first write, until a second after the server's close."""

    def __init__(self, port: int, closed: threading.Event) -> None:
        super().__init__(plan(fresh=1), host="127.0.0.1", port=port)
        self._closed = closed

    async def _open(self) -> HttpConnection:
        connection = await super()._open()
        self._stand_still()
        return connection

    def _stand_still(self) -> None:
        assert self._closed.wait(PATIENCE)
        time.sleep(1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel has to show when the FIN came")
@pytest.mark.parametrize(("patience", "lost"), [(1.0, 0), (0.0, 1)])
async def test_a_server_may_close_what_a_client_that_stood_still_has_not_used(
    patience: float, lost: int
) -> None:
    """It has to wait for the first request for a second, though, as any other client needs it."""
    closed = threading.Event()

    def serve() -> None:
        with listener.accept()[0] as first:
            select.select([first], [], [], patience)
        closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        load, late = LoadResult(), StandsStill(listener.getsockname()[1], closed)
        late.mark_signalled()
        connection = await late.connect(load)
        thread.join()
        assert connection is not None
        with closing(connection):
            assert connection.is_stale() == bool(lost)
            if lost:
                await late.exchange(load, connection, late.request(late.plan.load))
    assert (load.after.lost_total, load.refused) == (lost, 0)


async def test_a_run_that_is_stopped_ends_as_if_its_time_had_passed() -> None:
    load = Load(LoadPlan(keep_alive_clients=0, fresh_clients=0), port=1)
    async with anyio.create_task_group() as group:
        group.start_soon(load.in_position)
        with anyio.fail_after(PATIENCE):

            async def stop() -> None:
                await load.in_position()
                load.stop()

            group.start_soon(stop)
            result = await load.run(until=anyio.sleep_forever, within=60.0)
    load.stop()
    assert result.total.sent == 0


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/a b", []), ("/\x00", []), ("/", [("bad name", "x")]), ("/", [("Name", "a\nb")])],
)
async def test_what_is_no_request_is_an_error_that_shows_it(
    path: str, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(CheckError, match="is no HTTP request"):
        Request.make("GET", path, authority="server", headers=headers)


async def test_a_header_that_is_given_takes_the_place_of_ours() -> None:
    request = Request.make("GET", "/", authority="server", headers=[("host", "other"), ("X", "y")])
    head = request.data.lower()
    assert head.count(b"host: ") == 1
    assert b"host: other\r\n" in head
    assert b"x: y\r\n" in head
