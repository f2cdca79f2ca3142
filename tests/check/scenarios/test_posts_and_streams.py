"""POSTs and event streams that answer one: what is cut unseen is wrong, what is cut is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from check.client.adversary import OK, OK_AND_CLOSE
from check.client.loading import plan
from check.scenarios.staging import Scene, play
from graceful_asgi._check.client.answer import HttpAnswer
from graceful_asgi._check.client.expectation import Expectation, expect
from graceful_asgi._check.scenarios.post_stream import PostEventStream
from graceful_asgi._check.scenarios.posts import Posts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"
LAST = b"0\r\n\r\n"
TYPE = b"text/event-stream"


def stream(**options: Any) -> PostEventStream:
    return PostEventStream(plan(post_event_stream_path="/chat", keep_alive=1, **options))


def after_the_signal(*writes: bytes, end: str = "end") -> Callable[[Scene], Awaitable[None]]:
    """Serve a stream that has sent one event at the signal."""

    async def script(scene: Scene) -> None:
        await scene.head()
        await scene.reader.readexactly(2)
        scene.write(EVENTS + EVENT)
        await scene.signalled.wait()
        for write in writes:
            scene.write(write)
        scene.end() if end == "end" else scene.reset()

    return script


def whole(events: int) -> Expectation:
    body = b"data: 1\n\n" * events
    return expect([HttpAnswer(200, True, type=TYPE, body=body, length=len(body))] * 2)


ENDLESS = Expectation(statuses=frozenset({200}), type=TYPE, has_end=False)


@pytest.mark.parametrize(
    ("right", "writes", "end", "result", "kind"),
    [
        (whole(2), (EVENT, LAST), "end", "passed", ""),
        (whole(2), (LAST,), "end", "failed", "shorter body"),
        (whole(2), (), "reset", "failed", "cut body"),
        (whole(2), (), "end", "failed", "cut body"),
        (ENDLESS, (LAST,), "end", "failed", "shorter body"),
        (ENDLESS, (), "reset", "passed", ""),
    ],
)
async def test_a_stream_comes_whole_or_its_client_can_see_that_it_was_cut(
    right: Expectation, writes: tuple[bytes, ...], end: str, result: str, kind: str
) -> None:
    scenario = stream()
    script = after_the_signal(*writes, end=end)
    finding, load = await play(scenario, script, expectations={scenario.endpoint: right})
    assert finding.result == result
    assert ({*load.total.lost} | {*load.total.wrong}) == ({kind} if kind else set())


async def test_head_and_body_of_every_second_post_are_written_apart() -> None:
    first_reads: list[bytes] = []

    async def script(scene: Scene) -> None:
        while not scene.signalled.is_set():
            head = await scene.head()
            assert head.startswith(b"POST /items ")
            assert b"Content-Type: application/json\r\n" in head
            reader: Any = scene.reader
            first_reads.append(bytes(reader._buffer))  # what has come with the head
            assert await scene.reader.readexactly(9) == b'{"a": "b"}'[:9]
            await scene.reader.readexactly(1)
            scene.write(OK_AND_CLOSE if scene.signalled.is_set() else OK)

    posts = Posts(plan(post_path="/items", body=b'{"a": "b"}', keep_alive=1))
    finding, load = await play(posts, script, wait=lambda: len(first_reads) >= 4)
    assert finding.result == "passed"
    assert load.total.served == len(first_reads)
    assert {len(read) for read in first_reads} == {0, 10}


async def test_a_post_whose_connection_ends_before_it_is_answered_is_lost() -> None:
    asked: list[bytes] = []

    async def script(scene: Scene) -> None:
        asked.append(await scene.head())
        await scene.signalled.wait()
        scene.reset()

    posts = Posts(plan(post_path="/items", keep_alive=1))
    finding, load = await play(posts, script, wait=lambda: bool(asked))
    assert finding.result == "failed"
    assert load.during.lost_total == 1
