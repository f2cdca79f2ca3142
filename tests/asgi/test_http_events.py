"""Event streams and the drain: closed between two events, with a complete body, or not at all.

Both backends, in virtual time. The server is a fake that takes everything; what it makes of it on
the wire is for the end-to-end tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route
from support.asgi import END, LiveCall, graceful, http_scope, serving, started
from support.polling import PATIENCE
from support.virtual_time import virtual_time

from graceful_asgi import DrainPolicy, Phase, drain_notice
from graceful_asgi._asgi import http
from graceful_asgi._core.close_schedule import NOTICE_PERIOD
from graceful_asgi.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from anyio.abc import TaskGroup
    from starlette.requests import Request
    from support.asgi import App, Message, Receive, Send

pytestmark = pytest.mark.anyio

CLOSE = DrainPolicy(lame_duck_period=10, grace_period=30)
FINISH = DrainPolicy(lame_duck_period=10, grace_period=30, event_streams="finish")
START = started((b"content-type", b"text/event-stream; charset=utf-8"))
EVENT = b"data: tick\n\n"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


def part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


class Stream(LiveCall):
    """A request for an event stream, as an EventSource makes it unless the test says otherwise."""

    def __init__(
        self,
        app: App,
        tasks: TaskGroup,
        policy: DrainPolicy = CLOSE,
        *,
        method: str = "GET",
        accept: bytes = b"text/event-stream",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        given = headers or [(b"accept", accept)]
        scope = http_scope("/events", method=method, headers=given)
        super().__init__(app, scope, tasks, policy)
        self.say({"type": "http.request", "body": b"", "more_body": False})

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")

    @property
    def closed_at(self) -> float:
        """The instant at which an empty last part completed the body."""
        assert self.sent[-1] == END, self.sent[-1]
        assert all(m.get("more_body") for m in self.sent[1:-1]), "once"
        return self.times[-1]


def ticks(*chunks: bytes, every: float = 0.3) -> App:
    """Return an app that sends *chunks* over and over, and neither receives nor ends."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        while True:
            for chunk in chunks:
                await send(part(chunk))
                await anyio.sleep(every)

    return app


async def test_a_stream_is_closed_within_the_lame_duck_with_a_complete_body() -> None:
    async with anyio.create_task_group() as tasks:
        stream = await Stream(ticks(EVENT), tasks).open()
        await stream.drain()
    assert 0 < stream.closed_at < 10
    assert stream.body == EVENT * stream.body.count(b"tick")
    assert stream.error is None
    report = stream.drainer.report()
    assert (report.completed, report.closed, report.clean, report.stuck) == (0, 1, True, ())


async def test_a_stream_in_the_middle_of_an_event_is_closed_after_it() -> None:
    async with anyio.create_task_group() as tasks:
        policy = DrainPolicy(lame_duck_period=0)
        stream = await Stream(ticks(b"data: a", b"b\n", b"\n"), tasks, policy).open()
        await stream.drain()
    assert stream.body == b"data: ab\n\n"
    assert 0.4 < stream.closed_at <= 0.6
    assert stream.drainer.report().clean


async def test_with_finish_it_runs_into_the_grace_period_and_is_closed_before_that_does() -> None:
    async with anyio.create_task_group() as tasks:
        stream = await Stream(ticks(b"data: a", b"b\n", b"\n", every=0.25), tasks, FINISH).open()
        await stream.drain()
    assert 39.4 <= stream.closed_at < 40
    assert stream.body.endswith(b"\n\n")
    assert stream.error is None
    report = stream.drainer.report()
    assert (report.completed, report.cancelled, report.aborted) == (0, 1, 0)
    assert [(stuck.path, stuck.phase) for stuck in report.stuck] == [
        ("/events", "response started")
    ]


async def test_a_handler_may_let_its_stream_be_closed_as_the_drain_begins() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        drain_notice(scope).close_on_drain()
        await ticks(EVENT)(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks, FINISH).open()
        await stream.drain()
    assert stream.closed_at < 10
    assert stream.drainer.report().clean


async def test_a_handler_may_say_so_when_the_drain_is_under_way() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(EVENT))
        notice = drain_notice(scope)
        await notice.wait()
        await anyio.sleep(2)
        notice.close_on_drain()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks, FINISH).open()
        await stream.drain()
    assert stream.closed_at == pytest.approx(2, abs=0.1)


async def test_a_stream_that_begins_in_the_lame_duck_is_closed_like_any_other() -> None:
    async with anyio.create_task_group() as tasks:
        stream = Stream(ticks(EVENT), tasks)
        stream.begin()
        await anyio.sleep(4)
        await stream.open()
        await stream.drain()
    assert 4 <= stream.closed_at <= 10
    assert stream.sent[0]["headers"][-1] == (b"connection", b"close")


async def test_a_stream_that_has_only_begun_is_closed_too() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks).open()
        await stream.drain()
    assert stream.sent == [START, END]
    assert stream.drainer.report().clean


def request(
    app: App, tasks: TaskGroup, method: str, accept: bytes, policy: DrainPolicy = CLOSE
) -> Stream:
    return Stream(app, tasks, policy, method=method, accept=accept)


@pytest.mark.parametrize(("method", "ends"), [(b"subscriptions/listen", 10), (b"tools/call", 42)])
async def test_a_post_by_which_an_mcp_client_listens_is_closed_and_its_tool_call_is_not(
    method: bytes, ends: float
) -> None:
    """The client listens again. To it, only a result in the stream is an end of the answer."""
    headers = [(b"accept", b"text/event-stream"), (b"mcp-method", method)]
    async with anyio.create_task_group() as tasks:
        stream = Stream(ticks(EVENT), tasks, method="POST", headers=headers)
        await stream.open()
        await stream.drain()
    assert ends - 10 < stream.times[-1] <= ends
    report = stream.drainer.report()
    assert (report.closed, report.aborted) == ((1, 0) if ends == 10 else (0, 1))


NOBODY_RECONNECTS = pytest.mark.parametrize(
    ("method", "accept"),
    [
        pytest.param("POST", b"text/event-stream", id="a POST"),
        pytest.param("GET", b"*/*", id="a GET of something else"),
        pytest.param("QUERY", b"text/event-stream", id="a method of some day"),
    ],
)


@NOBODY_RECONNECTS
@pytest.mark.parametrize("event_streams", ["close", "finish"])
async def test_a_stream_whose_client_does_not_reconnect_is_never_completed(
    method: str, accept: bytes, event_streams: Any
) -> None:
    """Its client takes the end for that of the answer, and knows nothing of the rest."""
    policy = DrainPolicy(lame_duck_period=10, grace_period=30, event_streams=event_streams)
    async with anyio.create_task_group() as tasks:
        stream = await request(ticks(EVENT), tasks, method, accept, policy).open()
        await stream.drain()
    assert all(message["more_body"] for message in stream.sent[1:])
    assert stream.times[-1] > 39, "it had the whole grace period"
    assert stream.drainer.report().aborted == 1


@NOBODY_RECONNECTS
async def test_it_may_finish(method: str, accept: bytes) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        for _ in range(100):
            await send(part(EVENT))
            await anyio.sleep(0.3)
        await send({**END})

    async with anyio.create_task_group() as tasks:
        stream = await request(app, tasks, method, accept).open()
        await stream.drain()
    assert stream.body == EVENT * 100
    assert stream.drainer.report().clean


@NOBODY_RECONNECTS
async def test_its_app_may_let_it_be_closed(method: str, accept: bytes) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        drain_notice(scope).close_on_drain()
        await ticks(EVENT)(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        stream = await request(app, tasks, method, accept).open()
        await stream.drain()
    assert 0 < stream.closed_at < 10
    assert stream.drainer.report().clean


@NOBODY_RECONNECTS
async def test_what_its_app_leaves_unfinished_is_left_so(method: str, accept: bytes) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(EVENT))
        await drain_notice(scope).wait()

    async with anyio.create_task_group() as tasks:
        stream = await request(app, tasks, method, accept).open()
        await stream.drain()
    assert stream.sent[-1] == part(EVENT)


@pytest.mark.parametrize("accept", [b"text/event-stream", b"application/json, Text/Event-Stream"])
async def test_an_eventsource_is_known_by_what_it_accepts(accept: bytes) -> None:
    async with anyio.create_task_group() as tasks:
        stream = await request(ticks(EVENT), tasks, "GET", accept).open()
        await stream.drain()
    assert stream.closed_at < 10


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"content-type", b"application/octet-stream")], id="a download"),
        pytest.param([*START["headers"], (b"content-length", b"1000")], id="of a known length"),
        pytest.param([*START["headers"], (b"content-encoding", b"gzip")], id="compressed"),
    ],
)
async def test_no_other_body_is_ever_closed(headers: Any) -> None:
    """Whatever policy and handler say: a cut download must look cut."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        drain_notice(scope).close_on_drain()
        await send(started(*headers))
        while True:
            await send(part(EVENT))
            await anyio.sleep(0.5)

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks).open()
        await stream.drain()
    assert all(message["more_body"] for message in stream.sent[1:])
    assert stream.times[-1] > 39
    assert stream.drainer.report().aborted == 1


# How the app learns of it


async def test_the_app_learns_of_it_by_a_disconnect() -> None:
    learnt: list[Message] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({**START})
        await send(part(EVENT))
        learnt.append(await receive())
        learnt.append(await receive())

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks).open()
        await stream.drain()
    assert learnt == [{"type": "http.disconnect"}] * 2
    assert stream.error is None
    assert stream.closed_at < 10


async def test_an_app_that_goes_on_sending_learns_of_it_by_an_oserror() -> None:
    learnt: list[OSError] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await ticks(EVENT, every=0.25)(scope, receive, send)
        except OSError as exc:
            learnt.append(exc)
        await send({**END})  # as a framework ends what it was sending: that has been done

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks).open()
        await stream.drain()
    assert [type(exc) for exc in learnt] == [ClosedError]
    assert "GET /events" in str(learnt[0])
    assert stream.error is None
    assert stream.closed_at < 10


async def test_an_app_that_does_neither_is_cancelled_a_moment_later() -> None:
    left: list[float] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(EVENT))
        try:
            await anyio.sleep_forever()  # until something happens, which may be never
        finally:
            left.append(stream.now())

    async with anyio.create_task_group() as tasks:
        stream = Stream(app, tasks)
        await stream.open()
        await stream.drain()
    assert left == [pytest.approx(stream.closed_at + NOTICE_PERIOD, abs=0.01)]
    assert stream.error is None
    assert stream.drainer.report().clean, "its client has got a whole answer"


async def test_an_app_that_knows_of_it_may_take_its_time_to_clean_up() -> None:
    left: list[float] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await ticks(EVENT, every=0.25)(scope, receive, send)
        finally:
            await anyio.sleep(15)
            left.append(stream.now())

    async with anyio.create_task_group() as tasks:
        stream = Stream(app, tasks)
        await stream.open()
        await stream.drain()
    assert left[0] > stream.closed_at + 14
    assert stream.error is None
    assert stream.drainer.report().clean


async def test_an_app_that_knows_of_it_and_stays_is_cancelled_with_the_rest() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await ticks(EVENT, every=0.25)(scope, receive, send)
        finally:
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks).open()
        await stream.drain()
    assert stream.error is None
    report = stream.drainer.report()
    assert (report.completed, report.cancelled, report.aborted) == (0, 1, 0)
    assert report.stuck[0].phase == "response complete"


async def test_an_error_of_the_apps_own_is_passed_on() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        with pytest.raises(OSError, match="is closed"):
            await ticks(EVENT, every=0.25)(scope, receive, send)
        raise LookupError("in the clean-up")

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks).open()
        await stream.drain()
    assert isinstance(stream.error, LookupError)


async def test_a_client_that_has_gone_harms_nobody() -> None:
    async with anyio.create_task_group() as tasks:
        stream = Stream(ticks(EVENT), tasks)

        async def between(message: Message, take: Send) -> None:
            if message == END:
                raise ConnectionResetError("gone")
            await take(message)

        stream.between = between
        await stream.open()
        await stream.drain()
    assert stream.error is None
    assert stream.drainer.report().clean


async def test_a_client_that_does_not_take_the_last_part_is_cut_at_the_deadline() -> None:
    async with anyio.create_task_group() as tasks:
        stream = Stream(ticks(EVENT), tasks)

        async def between(message: Message, take: Send) -> None:
            if message == END:
                await anyio.sleep_forever()
            await take(message)

        stream.between = between
        await stream.open()
        await stream.drain()
    assert not any(message == END for message in stream.sent)
    report = stream.drainer.report()
    assert (report.completed, report.cancelled, report.aborted) == (0, 0, 1)
    assert report.elapsed >= 40


async def drained_with_a_slow_client() -> Stream:
    """Drain a stream whose last event was sent before, and is taken after 8 s.

    Its close is due after 5 s of the 10 s of the lame duck, and the app is silent.
    """

    async def sends_once(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(EVENT))
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        stream = Stream(sends_once, tasks)

        async def between(message: Message, take: Send) -> None:
            if message == part(EVENT):
                await anyio.sleep(8)
            await take(message)

        stream.between = between
        await stream.open()
        await stream.drain()
    return stream


async def test_an_event_that_a_slow_client_takes_in_the_lame_duck_is_the_last_one() -> None:
    stream = await drained_with_a_slow_client()
    assert stream.body == EVENT
    assert stream.closed_at == pytest.approx(8, abs=0.2)
    assert stream.drainer.report().clean


async def test_slow_clients_are_looked_at_less_often_the_more_is_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten looks a second at each of ten thousand would take the whole loop."""
    monkeypatch.setattr(http, "LOOK_COST", 1.9)  # as much as ten thousand cost together
    stream = await drained_with_a_slow_client()
    assert stream.closed_at == pytest.approx(9, abs=0.2)


async def test_an_app_that_gives_up_on_the_send_that_closes_its_stream_is_not_waited_for() -> None:
    """A reader too slow for the app: it gives the send up, and returns."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(b"data: half "))
        await drain_notice(scope).wait()
        with anyio.move_on_after(1):
            await send(part(b"an event\n\n"))  # and with it goes the end

    async with anyio.create_task_group() as tasks:
        stream = Stream(app, tasks, DrainPolicy(lame_duck_period=0))
        blocked = [True]

        async def between(message: Message, take: Send) -> None:
            if message == END and blocked:
                blocked.pop()
                await anyio.sleep_forever()
            await take(message)

        stream.between = between
        await stream.open()
        await stream.drain()
    assert stream.closed_at == pytest.approx(1, abs=0.01)
    assert stream.drainer.report().clean


async def test_a_stream_that_closes_before_anything_else_happens_is_noticed_all_the_same() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(b"data: half "))
        await tick.wait()
        await send(part(b"an event\n\n"))
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tick = anyio.Event()
        policy = DrainPolicy(lame_duck_period=0)
        stream = await Stream(app, tasks, policy).open()
        tick.set()
        await stream.drain()
    assert stream.drainer.report().elapsed < 1
    assert stream.drainer.report().clean


async def test_an_app_that_learns_of_it_with_its_request_unread_may_clean_up() -> None:
    """It is the server that says so: the response is over."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(EVENT))
        await drain_notice(scope).wait()
        await anyio.sleep(0.1)
        assert await receive() == {"type": "http.disconnect"}
        await anyio.sleep(5)
        left.append(True)

    left: list[bool] = []
    async with anyio.create_task_group() as tasks:
        stream = Stream(app, tasks, DrainPolicy(lame_duck_period=0))
        await stream._mail.get()
        stream.say({"type": "http.disconnect"})
        await stream.open()
        await stream.drain()
    assert left == [True]


# Frameworks


def starlette(
    response: type[StreamingResponse] | type[EventSourceResponse],
) -> tuple[Any, list[str]]:
    said: list[str] = []

    async def events(request: Request) -> Any:
        async def body() -> AsyncIterator[str]:
            try:
                while True:
                    yield "tick" if response is EventSourceResponse else "data: tick\n\n"
                    await anyio.sleep(0.3)
            finally:
                said.append("generator left")

        async def afterwards() -> None:
            said.append("background done")

        return response(
            body(), media_type="text/event-stream", background=BackgroundTask(afterwards)
        )

    return Starlette(routes=[Route("/events", events)]), said


# From 2.4 on Starlette leaves the generator to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator")
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_starlette_stream_is_closed_as_if_its_client_had_gone(spec_version: str) -> None:
    """Up to 2.3 Starlette listens for the disconnect; from 2.4 on it waits for the error."""
    app, said = starlette(StreamingResponse)
    async with anyio.create_task_group() as tasks:
        stream = Stream(app, tasks)
        stream.scope["asgi"] = {"version": "3.0", "spec_version": spec_version}
        await stream.open()
        await stream.drain()
    assert stream.error is None
    assert stream.closed_at < 10
    assert stream.body.endswith(b"data: tick\n\n")
    assert said[0] == "generator left"
    assert stream.drainer.report().clean


async def test_an_sse_starlette_stream_is_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # One flag for the whole process, which the first server that is told to stop sets for good.
    monkeypatch.setattr(AppStatus, "should_exit", False)
    app, said = starlette(EventSourceResponse)
    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks).open()
        await stream.drain()
    assert stream.error is None
    assert stream.closed_at < 10
    assert stream.body.endswith(b"data: tick\r\n\r\n")
    assert "generator left" in said
    assert stream.drainer.report().clean


async def test_a_stream_that_the_app_leaves_unfinished_while_draining_is_completed() -> None:
    """sse-starlette does, when it sees that uvicorn has been told to stop."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(EVENT))
        await drain_notice(scope).wait()

    async with anyio.create_task_group() as tasks:
        stream = await Stream(app, tasks, FINISH).open()
        await stream.drain()
    assert stream.closed_at == pytest.approx(0, abs=0.01)
    assert stream.drainer.report().clean


@pytest.mark.parametrize("draining", [False, True])
async def test_what_an_app_leaves_unfinished_otherwise_is_left_to_the_server(
    draining: bool,
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**START})
        await send(part(b"data: half an event" if draining else EVENT))

    middleware = graceful(app)
    async with serving(middleware) as server:
        if draining:
            middleware.drainer.begin("test")
        with anyio.fail_after(PATIENCE):
            call = await server.get()
        assert middleware.drainer.phase is (Phase.LAME_DUCK if draining else Phase.SERVING)
    assert len(call.sent) == 2
    assert call.sent[-1]["more_body"]
