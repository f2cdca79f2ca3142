"""The rules of counting that no server can show: whose fault it is, and when a wait ends."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import anyio
import pytest
from support.polling import PATIENCE

from graceful_asgi._check.client import run
from graceful_asgi._check.client.http1 import Request
from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.errors import CheckError, SetupError
from graceful_asgi._check.load import Load

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
