"""Messages that an app has sent before a drain: not looked at while serving, known to the drain."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from support.asgi import LiveCall, http_scope, started
from support.virtual_time import virtual_time

from graceful_asgi import DrainPolicy

pytestmark = pytest.mark.anyio

SOON = DrainPolicy(lame_duck_period=1, grace_period=5, cancel_period=1)
EVENTS = started((b"content-type", b"text/event-stream"))
TEXT = started((b"content-type", b"text/plain"))
DEBUG = {"type": "http.response.debug", "info": {}}
LAST = {"type": "http.response.body", "body": b"last"}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


def piece(body: bytes) -> Any:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def drained(*messages: Any, forgets: bool = False) -> LiveCall:
    """Return the call of an app that sends *messages* while serving, then waits for ever.

    With *forgets* another drain comes before, and is called off after the first message.
    """
    go_on = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(messages[0])
        if forgets:
            await go_on.wait()
        for message in messages[1:]:
            await send(message)
        await anyio.sleep_forever()

    scope = http_scope("/events", headers=[(b"accept", b"text/event-stream")])
    async with anyio.create_task_group() as tasks:
        call = await LiveCall(app, scope, tasks, SOON).open()
        if forgets:
            call.drainer.begin("a mistake")
            await anyio.sleep(0.01)
            call.drainer.resume()
            go_on.set()
        await anyio.sleep(0.1)
        assert len(call.sent) == len(messages)
        await call.drain()
    return call


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"data: x\n\n"],
        [b"data: x\n", b"\n"],
        [b"data: x\r\n", b"\r", b"\n"],
        [b"data: x\n\n", b""],
        [b"data: half", b"\n\n", b": ping\n\n"],
    ],
)
@pytest.mark.parametrize("forgets", [False, True])
async def test_a_silent_stream_is_closed_after_whole_events(
    pieces: list[bytes], forgets: bool
) -> None:
    call = await drained(EVENTS, *map(piece, pieces), forgets=forgets)
    assert call.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    report = call.drainer.report()
    assert (report.clean, report.aborted) == (True, 0)


@pytest.mark.parametrize("pieces", [[b"data: x"], [b"data: x\n\n", b"d"], [b"data: x\n", b"d\n"]])
async def test_a_silent_stream_is_cut_in_the_middle_of_an_event(pieces: list[bytes]) -> None:
    call = await drained(EVENTS, *map(piece, pieces))
    assert call.sent[-1].get("more_body"), "it looks complete"
    assert call.drainer.report().aborted == 1


@pytest.mark.parametrize("before", [[], [DEBUG], [DEBUG, DEBUG]])
async def test_the_kind_of_the_response_is_known_whatever_came_before_it(before: Any) -> None:
    call = await drained(*before, EVENTS, piece(b"data: 1\n\n"), piece(b"data: 2\n\n"))
    assert not call.sent[-1]["more_body"]


@pytest.mark.parametrize(
    ("messages", "progress", "sent"),
    [
        ([TEXT], "response started", 0),
        ([TEXT, piece(b"12345"), piece(b"678"), piece(b"9")], "response started", 9),
        ([TEXT, piece(b"12345"), LAST], "response complete", 9),
        ([TEXT, LAST, {"type": "http.response.trailers"}], "response complete", 4),
    ],
)
async def test_the_report_says_how_far_the_answer_was(
    messages: Any, progress: str, sent: int
) -> None:
    call = await drained(*messages)
    (stuck,) = call.drainer.report().stuck
    assert stuck.phase == progress
    assert stuck.sent == sent
