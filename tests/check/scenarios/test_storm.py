"""The connection storm: from the signal on, and each connection carries one request at most."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from support.polling import eventually

from check.client.adversary import OK, Adversary, Request, always, first
from check.client.loading import plan
from check.scenarios.staging import EXIT
from graceful_asgi._check.load import Load
from graceful_asgi._check.scenarios.storm import Storm

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from graceful_asgi._check.result.counts import LoadResult
    from graceful_asgi._check.result.finding import Finding

pytestmark = pytest.mark.anyio


async def storm_on(adversary: Adversary, storm: Storm) -> tuple[Finding, LoadResult]:
    """Send the signal once the load runs; the server has gone when it has answered enough."""
    async with adversary.serving():
        load = Load(storm.plan, port=adversary.port, scenarios=[storm])

        async def until_served() -> None:
            await load.in_position()
            load.mark_signalled()
            await adversary.done.wait()

        result = await load.run(until=until_served, within=30.0)
    assert adversary.done.is_set()
    [finding] = load.findings(EXIT)
    return finding, result


async def test_every_request_is_sent_after_the_signal_on_a_connection_of_its_own() -> None:
    adversary = Adversary(first(0, Request.reset), enough=60)
    finding, result = await storm_on(adversary, Storm(plan(fresh=3)))
    assert finding.result == "passed"
    assert adversary.most_on_a_connection == 1
    assert result.total == result.after
    assert result.after.served == adversary.served >= 60


async def test_no_connection_is_opened_before_the_signal() -> None:
    adversary = Adversary(first(0, Request.reset))
    storm = Storm(plan(fresh=3))

    async def until_another_client_has_connected() -> None:
        with socket.create_connection(("127.0.0.1", adversary.port)):
            await eventually(lambda: adversary.connections > 0)

    async with adversary.serving():
        load = Load(storm.plan, port=adversary.port, scenarios=[storm])
        running = load.run(until=until_another_client_has_connected, within=30.0)
        assert (await running).total.sent == 0
    assert adversary.connections == 1


async def test_what_is_accepted_and_reset_is_lost() -> None:
    adversary = Adversary(first(5, Request.reset), enough=20)
    finding, result = await storm_on(adversary, Storm(plan(fresh=3)))
    assert finding.failed
    assert result.after.lost == {"reset on fresh": 5}


async def test_a_connection_that_is_closed_before_the_client_writes_costs_no_request() -> None:
    """The first connection waits before it writes, for as long as the server needs to close it."""
    closed: list[bool] = []

    class ClosesTheFirst(Adversary):
        async def handle(self, reader: StreamReader, writer: StreamWriter) -> None:
            if closed:
                await Adversary.handle(self, reader, writer)
            else:
                writer.close()
                await writer.wait_closed()
                closed.append(True)

    class WaitsForTheClose(Storm):
        async def think(self) -> None:
            await eventually(lambda: bool(closed))

    adversary = ClosesTheFirst(always(lambda request: request.answer(OK)), enough=5)
    finding, result = await storm_on(adversary, WaitsForTheClose(plan(fresh=1)))
    assert finding.result == "passed"
    assert closed
    assert result.total.unsent == 0
    assert result.total.sent == adversary.requests


@pytest.mark.parametrize(("fresh", "count"), [(0, 0), (7, 7), (500, 20)])
def test_there_are_as_many_clients_as_open_fresh_connections_but_not_hundreds(
    fresh: int, count: int
) -> None:
    assert Storm(plan(fresh=fresh)).count() == count
