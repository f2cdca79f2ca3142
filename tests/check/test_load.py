"""The load keeps the rules its count rests on: reuse, refusal, the two sides of the signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from support.polling import PATIENCE, eventually
from support.ports import free_port

from check.client.adversary import (
    CUT_CHUNKED,
    OK,
    OK_AND_CLOSE,
    OK_HTTP_10,
    OK_UNTIL_EOF,
    Adversary,
    Request,
    always,
    first,
    status,
)
from check.client.loading import measure, plan
from check.scenarios.staging import EXIT
from graceful_asgi._check.errors import SetupError
from graceful_asgi._check.load import Load

if TYPE_CHECKING:
    from graceful_asgi._check.result.counts import LossKind

pytestmark = pytest.mark.anyio


async def test_every_answered_request_is_served_and_none_is_lost() -> None:
    adversary = Adversary(first(0, Request.reset), enough=200)
    result = await measure(adversary, plan(keep_alive=3, fresh=2))
    assert result.before.served == adversary.served >= 200
    assert result.before.lost == {}
    assert result.refused == 0


async def test_a_keep_alive_client_stays_on_its_connection() -> None:
    adversary = Adversary(first(0, Request.reset), enough=50)
    await measure(adversary, plan(keep_alive=3))
    assert adversary.connections == 3


async def test_a_fresh_client_uses_a_connection_for_one_request() -> None:
    adversary = Adversary(first(0, Request.reset), enough=50)
    await measure(adversary, plan(fresh=3))
    assert adversary.most_on_a_connection == 1
    assert adversary.connections >= adversary.requests >= 50


async def test_an_answer_in_our_buffers_when_the_server_has_gone_is_not_lost() -> None:
    adversary = Adversary(always(lambda request: request.end(OK)), enough=1)
    result = await measure(adversary, plan(fresh=1))
    assert result.before.lost == {}


@pytest.mark.parametrize("answer", [OK_AND_CLOSE, OK_HTTP_10])
async def test_connection_close_is_honoured_by_a_new_connection(answer: bytes) -> None:
    """The server does not close: a client that went on would be answered, and be seen."""
    adversary = Adversary(always(lambda request: request.answer(answer)), enough=50)
    result = await measure(adversary, plan(keep_alive=3))
    assert adversary.most_on_a_connection == 1
    assert adversary.connections >= adversary.requests >= 50
    assert result.before.lost == {}


async def test_a_connection_found_closed_before_reuse_costs_no_request() -> None:
    """The end of the stream arrives together with the answer, so no reuse may ever be tried."""
    adversary = Adversary(always(lambda request: request.end(OK)), enough=50)
    result = await measure(adversary, plan(keep_alive=3))
    assert adversary.most_on_a_connection == 1
    assert result.before.lost == {}


async def test_a_body_that_ends_with_the_connection_is_complete() -> None:
    adversary = Adversary(always(lambda request: request.end(OK_UNTIL_EOF)), enough=20)
    result = await measure(adversary, plan(keep_alive=2, fresh=2))
    assert result.before.lost == {}


async def test_a_refused_connection_after_the_signal_is_refused_and_not_lost() -> None:
    """The listener closes while all five clients wait for an answer, so none is on its way in:
    a connection in the accept queue at that moment would be a true loss.
    """
    load: Load
    all_waiting = anyio.Event()

    async def respond(request: Request) -> bool:
        if request.number == 5:
            load.mark_signalled()
            adversary.stop_listening()
            all_waiting.set()
        await all_waiting.wait()
        request.answer(OK_AND_CLOSE)
        return True

    adversary = Adversary(respond)
    async with adversary.serving():
        load = Load(plan(keep_alive=3, fresh=2), port=adversary.port)
        result = await load.run(
            until=lambda: eventually(lambda: load.statistics().refused == 5), within=PATIENCE
        )
    assert result.refused == 5
    assert result.total.served == adversary.served == 5
    assert result.total.lost == {}


async def test_a_refused_connection_before_the_signal_is_raised() -> None:
    load = Load(plan(keep_alive=2, fresh=2), port=free_port())
    with pytest.raises(SetupError, match="before the signal"):
        await load.run(until=anyio.sleep_forever, within=PATIENCE)


async def test_a_connection_refused_for_a_moment_after_the_signal_is_tried_again() -> None:
    """The retries are for a listener that is being handed over."""
    adversary = Adversary(first(0, Request.reset), enough=5)
    async with adversary.serving():
        port = adversary.port
        adversary.stop_listening()
        load = Load(plan(fresh=1, connect_retries=1000), port=port)
        load.mark_signalled()
        reopened = Adversary(first(0, Request.reset), enough=5)

        async def reopen() -> None:
            async with reopened.serving(port):
                await reopened.done.wait()

        result = await load.run(until=reopen, within=PATIENCE)
    assert result.after.served >= 5


async def test_requests_are_counted_on_the_side_of_the_signal_they_were_written_on() -> None:
    """The third request is in flight at the signal: written before it, answered after it."""
    load: Load

    async def respond(request: Request) -> bool:
        if request.number == 3:
            load.mark_signalled()
        request.answer(OK)
        return True

    adversary = Adversary(respond, enough=10)
    async with adversary.serving():
        load = Load(plan(keep_alive=1), port=adversary.port)
        result = await load.run(until=adversary.done.wait, within=PATIENCE)
    assert result.before.sent == result.before.served == 2
    assert result.during.sent == result.during.served == 1
    assert result.after.sent == result.after.served == adversary.requests - 3


async def test_errors_are_counted_by_status() -> None:
    """If nothing was learned, a 404 may be the server's usual answer."""
    statuses = [500, 502, 502, 404]

    async def respond(request: Request) -> bool:
        request.answer(status(statuses.pop()) if statuses else OK)
        return True

    result = await measure(Adversary(respond, enough=20), plan(keep_alive=2))
    assert result.before.wrong == {"status 500": 1, "status 502": 2}
    assert result.before.lost == {}


async def test_the_slow_request_and_the_stream_have_outcomes_of_their_own() -> None:
    """The load ends in the step after an answer: none is in flight on its way to the server."""
    paths: list[str] = []
    enough = anyio.Event()

    async def respond(request: Request) -> bool:
        paths.append(request.path)
        if request.path == "/stream":
            request.end(CUT_CHUNKED)
        else:
            request.answer(OK)
        if "/stream" in paths and request.path == "/slow" and len(paths) > 2:
            enough.set()
        return request.path == "/slow"

    adversary = Adversary(respond)
    async with adversary.serving():
        load = Load(plan(slow_path="/slow", stream_path="/stream"), port=adversary.port)
        result = await load.run(until=enough.wait, within=PATIENCE)
    found = {finding.scenario: finding for finding in load.findings(EXIT)}
    assert found["slow request"].result == "untested"
    assert "no connection before the signal" in found["slow request"].detail
    assert found["streaming download"].detail == "lost: cut body"
    assert result.before.sent == adversary.requests
    kinds: dict[LossKind, int] = {"cut body": 1}
    assert result.before.lost == kinds


async def test_the_load_ends_at_its_deadline_when_the_server_never_does() -> None:
    adversary = Adversary(first(0, Request.reset))
    async with adversary.serving():
        load = Load(plan(keep_alive=2, fresh=2), port=adversary.port)
        with anyio.fail_after(PATIENCE):
            result = await load.run(until=anyio.sleep_forever, within=1.0)
    assert result.before.served == adversary.served > 0
    assert result.before.lost == {}
