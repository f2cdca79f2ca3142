"""A WebSocket session: what passes through it, and how a drain closes it, at a message boundary.

Both backends, in virtual time: here a second is as short as any other wait.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.asgi import (
    QUICK,
    LiveCall,
    Mailbox,
    answer,
    app_with,
    graceful,
    hangs_after,
    refused,
    run,
    serving,
    shut_down,
    websocket_scope,
)
from support.polling import PATIENCE, eventually
from support.virtual_time import virtual_time

from graceful_asgi import DrainPolicy, Phase, drain_notice
from graceful_asgi._asgi.websocket import QUIET_PERIOD, READ_PERIOD, READ_TURNS, RECENT_PERIOD
from graceful_asgi._core.close_schedule import HURRIED_PERIOD, NOTICE_PERIOD
from graceful_asgi._core.drainer import as_drainer, runner_of
from graceful_asgi.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup
    from support.asgi import App, Message, Receive, Send

pytestmark = pytest.mark.anyio

POLICY = DrainPolicy(lame_duck_period=10, grace_period=30, cancel_period=2)
CONNECT: Message = {"type": "websocket.connect"}
ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 1012, "reason": "service restart"}
DISCONNECT: Message = {"type": "websocket.disconnect", "code": 1012, "reason": "service restart"}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


def text(said: str) -> Message:
    return {"type": "websocket.receive", "text": said}


def reply(said: str) -> Message:
    return {"type": "websocket.send", "text": said}


class Session(LiveCall):
    """A WebSocket session that its client has just asked for."""

    def __init__(self, app: App, tasks: TaskGroup, policy: DrainPolicy = POLICY) -> None:
        super().__init__(app, websocket_scope(), tasks, policy)
        self.say(CONNECT)

    @property
    def closed_at(self) -> float:
        assert self.sent[-1] == CLOSE
        return self.times[-1]


async def echo(scope: Any, receive: Receive, send: Send, *, work: float = 0.0) -> None:
    """Receive and send in turn, until the disconnect."""
    assert await receive() == CONNECT
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await anyio.sleep(work)
        await send(reply(message["text"]))
    assert message == DISCONNECT


async def slow_echo(scope: Any, receive: Receive, send: Send) -> None:
    await echo(scope, receive, send, work=12)


async def apart(
    scope: Any, receive: Receive, send: Send, *, work: float = 0.4, greets: bool = True
) -> None:
    """Receive in one task, work and send in another."""
    assert await receive() == CONNECT
    await send(ACCEPT)
    work_to_do = Mailbox()

    given = scope["given"] = []
    if greets:
        await send(reply("hello"))

    async def write() -> None:
        while True:
            said = await work_to_do.get()
            await anyio.sleep(work)
            await send(reply(said))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        while (message := await receive())["type"] == "websocket.receive":
            given.append(message["text"])
            work_to_do.put(message["text"])
        assert message == DISCONNECT
        tasks.cancel_scope.cancel()


async def collect(scope: Any, receive: Receive, send: Send) -> None:
    """Receive, and never send anything."""
    assert await receive() == CONNECT
    await send(ACCEPT)
    state = scope["collected"] = []
    while (message := await receive())["type"] == "websocket.receive":
        state.append(message["text"])
    assert message == DISCONNECT


# What passes


async def test_a_websocket_passes_untouched_while_draining() -> None:
    sent: list[Message] = [
        {"type": "websocket.accept", "subprotocol": "a", "headers": [(b"a", b"b")]},
        {"type": "websocket.send", "text": "x"},
        {"type": "websocket.custom"},
        {"type": "websocket.close", "code": 1000, "reason": ""},
    ]
    call = await run(app_with(*sent, read=1), websocket_scope(), {"type": "websocket.connect"})
    assert call.sent == sent


async def test_a_refused_websocket_is_closed_with_service_restart() -> None:
    middleware = graceful(answer, DrainPolicy(new_requests="reject"))
    async with serving(middleware) as server:
        call = await refused(server, runner_of(middleware.drainer), websocket_scope())
    assert [message["type"] for message in call.sent] == ["websocket.close"]
    assert call.sent[0]["code"] == 1012
    assert middleware.drainer.report().rejected == 1


async def test_a_refused_websocket_gets_503_where_the_server_can_say_it() -> None:
    middleware = graceful(answer, DrainPolicy(new_requests="reject"))
    scope = websocket_scope(extensions={"websocket.http.response": {}})
    async with serving(middleware) as server:
        call = await refused(server, runner_of(middleware.drainer), scope)
    start = call.message("websocket.http.response.start")
    assert start["status"] == 503
    assert b"retry-after" in dict(start["headers"])
    assert call.message("websocket.http.response.body")["body"]
    assert middleware.drainer.report().rejected == 1


@pytest.mark.parametrize(
    "messages", [[], [{"type": "websocket.accept"}], [{"type": "websocket.accept"}, {"type": "x"}]]
)
async def test_a_websocket_that_is_cancelled_is_closed_with_service_restart(
    messages: list[Message],
) -> None:
    call, drainer = await shut_down(hangs_after(*messages), websocket_scope())
    assert call.error is None
    assert call.sent[:-1] == messages
    assert call.sent[-1]["type"] == "websocket.close"
    assert call.sent[-1]["code"] == 1012
    assert drainer.report().cancelled == 1
    (stuck,) = drainer.report().stuck
    assert (stuck.kind, stuck.method, stuck.path) == ("websocket", "", "/ws")
    assert stuck.phase == ("open" if messages else "handshake")


async def test_a_websocket_that_the_app_has_closed_is_not_closed_again() -> None:
    closed: Message = {"type": "websocket.close", "code": 1000}
    call, drainer = await shut_down(hangs_after(closed), websocket_scope())
    assert call.sent == [closed]
    assert drainer.report().stuck[0].phase == "closed"


async def test_a_websocket_that_its_client_has_closed_is_not_closed_again() -> None:
    async def lingers(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        await anyio.sleep_forever()

    middleware = graceful(lingers, QUICK)
    async with serving(middleware) as server:
        call = await server.begin(websocket_scope(), {"type": "websocket.disconnect"})
        await anyio.wait_all_tasks_blocked()
        await server.shut_down()
        await call.over.wait()
    assert [message["type"] for message in call.sent] == ["websocket.accept"]


async def test_a_close_that_the_server_refuses_harms_nobody() -> None:
    """uvicorn raises where it has closed the WebSocket first, in its own words."""
    middleware = graceful(hangs_after({"type": "websocket.accept"}), QUICK)
    async with serving(middleware) as server:
        call = server.call(websocket_scope())

        async def between(message: Message, take: Send) -> None:
            if message["type"] == "websocket.close":
                raise RuntimeError("Unexpected ASGI message 'websocket.close'")
            await take(message)

        call.between = between
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await call.running.wait()
            await anyio.wait_all_tasks_blocked()
            await server.shut_down()
            await call.over.wait()
    assert call.error is None
    assert middleware.drainer.report().cancelled == 1


# Closed at a message boundary


async def test_a_session_whose_handler_waits_is_closed_within_the_lame_duck() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(echo, tasks).open()
        session.say(text("before"))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.error is None
    assert session.sent == [ACCEPT, reply("before"), CLOSE]
    assert 0 < session.closed_at < 10
    report = session.drainer.report()
    assert (report.completed, report.closed, report.clean) == (0, 1, True)
    assert report.stuck == ()


async def test_without_a_lame_duck_it_is_closed_at_once() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(echo, tasks, DrainPolicy(lame_duck_period=0)).open()
        await session.drain()
    assert session.sent == [ACCEPT, CLOSE]
    assert session.closed_at == pytest.approx(0, abs=1e-3)


async def test_a_begin_closes_it_too_though_nobody_carries_the_drain_out() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(echo, tasks).open()
        session.begin()
        report = await as_drainer(session.drainer).wait_drained()
    assert session.sent == [ACCEPT, CLOSE]
    assert session.closed_at < 10
    assert (session.drainer.phase, report.closed) == (Phase.LAME_DUCK, 1)


async def test_a_handler_at_work_is_left_alone_and_its_replies_go_out_first() -> None:
    """The work takes longer than the lame duck. What the server has read by then is the handler's,
    too."""
    async with anyio.create_task_group() as tasks:
        session = await Session(slow_echo, tasks).open()
        session.say(text("a lot"))
        session.say(text("not yet given to the handler"))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.error is None
    assert session.sent == [ACCEPT, reply("a lot"), reply("not yet given to the handler"), CLOSE]
    assert session.closed_at == pytest.approx(24, abs=0.1)
    assert session.drainer.report().clean


async def test_a_handler_that_never_comes_back_is_cancelled_as_the_grace_period_ends() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(lambda *call: echo(*call, work=3600), tasks).open()
        session.say(text("a lot"))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.error is None
    assert session.sent == [ACCEPT, CLOSE]
    assert session.closed_at == pytest.approx(40, abs=0.1)
    report = session.drainer.report()
    assert (report.completed, report.cancelled) == (0, 1)
    assert report.stuck[0].phase == "open"


async def test_a_message_that_has_come_in_that_moment_is_answered_first() -> None:
    """It has woken the handler, which has not run yet: too late to leave it without an answer."""
    async with anyio.create_task_group() as tasks:
        session = await Session(echo, tasks, DrainPolicy(lame_duck_period=0)).open()
        session.say(text("just now"))
        session.begin()
        with anyio.fail_after(PATIENCE):
            await session.over.wait()
    assert session.sent == [ACCEPT, reply("just now"), CLOSE]
    assert session.error is None


async def test_a_handshake_under_way_is_completed_before_the_close() -> None:
    async def late(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await anyio.sleep(15)  # looks a token up, and the lame duck passes
        await send(ACCEPT)
        assert await receive() == DISCONNECT

    async with anyio.create_task_group() as tasks:
        session = await Session(late, tasks).open()
        await session.drain()
    assert session.error is None
    assert session.sent == [ACCEPT, CLOSE]
    assert session.closed_at == pytest.approx(15, abs=0.1)


async def test_a_session_opened_in_the_lame_duck_is_served_and_closed_like_any_other() -> None:
    async with anyio.create_task_group() as tasks:
        session = Session(echo, tasks)
        session.begin()
        await anyio.sleep(5)
        await session.open()
        session.say(text("hello"))
        await session.drain()
    assert session.sent == [ACCEPT, reply("hello"), CLOSE] or session.sent == [ACCEPT, CLOSE]
    assert 5 <= session.closed_at <= 10
    assert session.drainer.report().clean


async def test_a_drain_that_is_called_off_closes_no_more_sessions() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(slow_echo, tasks).open()
        session.say(text("a lot"))
        await anyio.wait_all_tasks_blocked()
        session.begin()
        await anyio.sleep(9)  # its time has come, and found it at work
        session.drainer.resume()
        await anyio.sleep(20)
        session.say(text("more"))
        await anyio.sleep(20.5)
        assert session.sent == [ACCEPT, reply("a lot"), reply("more")]
        session.begin()
        await session.over.wait()
    assert session.sent[-1] == CLOSE


async def test_when_the_lame_duck_is_cut_short_all_are_closed_at_once() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(echo, tasks).open()
        session.begin()
        await anyio.sleep(1)
        session.drainer.stop("SIGINT", lame_duck=False)
        await session.over.wait()
    assert session.closed_at == pytest.approx(1, abs=1e-3)


# One task waits for messages while another sends


SHORT = DrainPolicy(lame_duck_period=0, grace_period=10)
"""Half of that, 5 s, for replies that somebody may still owe."""


async def closed_while(app: App, *said: str, policy: DrainPolicy = SHORT) -> Session:
    """Send a message to *app*, drain, and return the session when it is over."""
    async with anyio.create_task_group() as tasks:
        session = await Session(app, tasks, policy).open()
        for one in said:
            session.say(text(one))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.error is None
    return session


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("work", [0.2, 2.0])
async def test_the_reply_that_another_task_is_to_send_goes_out_first(
    greets: bool, work: float
) -> None:
    session = await closed_while(lambda *call: apart(*call, work=work, greets=greets), "a", "b")
    greeting = [reply("hello")] if greets else []
    assert session.sent == [ACCEPT, *greeting, reply("a"), reply("b"), CLOSE]
    assert session.closed_at <= 2 * work + QUIET_PERIOD + 0.01
    assert session.drainer.report().clean


async def test_a_reply_in_several_parts_goes_out_whole() -> None:
    async def tokens(scope: Any, receive: Receive, send: Send) -> None:
        async def write() -> None:
            for number in range(10):
                await anyio.sleep(0.2)
                await send(reply(f"token {number}"))

        assert await receive() == CONNECT
        await send(ACCEPT)
        async with anyio.create_task_group() as tasks:
            while (await receive())["type"] == "websocket.receive":
                tasks.start_soon(write)
            tasks.cancel_scope.cancel()

    session = await closed_while(tokens, "prompt")
    assert session.sent[1:-1] == [reply(f"token {number}") for number in range(10)]
    assert session.sent[-1] == CLOSE


async def ticker(scope: Any, receive: Receive, send: Send) -> None:
    """Once spoken to, send in a task of its own until the client has gone."""

    async def write() -> None:
        while True:
            await send(reply("tick"))
            await anyio.sleep(0.07)

    assert await receive() == CONNECT
    await send(ACCEPT)
    async with anyio.create_task_group() as tasks:
        while (await receive())["type"] == "websocket.receive":
            tasks.start_soon(write)
        tasks.cancel_scope.cancel()


async def test_one_that_always_sends_and_is_seldom_spoken_to_is_closed_at_once() -> None:
    async with anyio.create_task_group() as tasks:
        session = Session(ticker, tasks, SHORT)
        session.say(text("subscribe"))
        tasks.start_soon(session.run)
        await anyio.sleep(RECENT_PERIOD + 1)
        await session.drain()
    assert session.closed_at == pytest.approx(0, abs=0.01)


async def test_a_reply_that_never_comes_holds_the_close_for_half_the_grace_period() -> None:
    session = await closed_while(lambda *call: apart(*call, work=3600), "a")
    assert session.sent == [ACCEPT, reply("hello"), CLOSE]
    assert session.closed_at == pytest.approx(5, abs=0.01)
    assert session.drainer.report().clean


async def test_a_message_that_is_long_unanswered_holds_nothing_up() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(collect, tasks, SHORT).open()
        session.say(text("heartbeat"))
        await anyio.sleep(RECENT_PERIOD + 1)
        await session.drain()
    assert session.closed_at == pytest.approx(0, abs=0.01)


async def test_one_that_never_replies_gets_its_messages_until_it_is_closed() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(collect, tasks, SHORT).open()
        session.say(text("before"))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(session.drain)
        for number in range(4):
            await anyio.sleep(1)
            session.say(text(str(number)))
    assert session.error is None
    assert session.scope["collected"] == ["before", "0", "1", "2", "3"]
    assert session.closed_at == pytest.approx(5, abs=0.01)


async def test_a_client_that_never_waits_for_a_reply_gets_one_to_all_that_was_given() -> None:
    """There is always one under way. From the time on that is due no more messages are given."""
    async with anyio.create_task_group() as tasks:
        session = await Session(lambda *call: apart(*call, work=0.1), tasks, SHORT).open()

        async def talk() -> None:
            for number in range(100):  # 9 s of it
                session.say(text(str(number)))
                await anyio.sleep(0.09)

        tasks.start_soon(talk)
        await anyio.sleep(0.25)
        await session.drain()
    given = session.scope["given"]
    assert session.sent[2:-1] == [reply(said) for said in given]
    assert session.sent[-1] == CLOSE
    assert session.closed_at < 1


async def test_an_app_that_falls_over_the_end_does_not_keep_the_close_from_its_peer() -> None:
    """Its writer fails as the reader is told; what both run in cancels the reader, at the close."""
    session = await closed_while(lambda *call: apart(*call, work=5), "a")
    assert session.sent[:2] == [ACCEPT, reply("hello")]
    assert session.sent[-1] == CLOSE


async def test_a_handler_that_waits_in_short_turns_is_closed_all_the_same() -> None:
    async def impatient(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        await send(reply("hello"))
        message: Message = {"type": ""}
        while message["type"] != "websocket.disconnect":
            with anyio.move_on_after(0.3):
                message = await receive()

    session = await closed_while(impatient, "a")
    assert session.closed_at <= 5.5
    assert session.drainer.report().clean


async def test_a_wait_that_was_left_does_not_hide_the_one_that_goes_on() -> None:
    """A handler that gives a receive up and does not wait for it to have ended."""

    async def overlapping(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def give_up() -> None:
                with first:
                    await receive()

            tasks.start_soon(give_up)
            await anyio.sleep(0.1)
            first.cancel()
            assert await receive() == DISCONNECT

    session = await closed_while(overlapping)
    assert session.closed_at < 1


async def test_a_reply_owed_by_a_session_of_a_long_drain_gets_a_moment() -> None:
    """A begin holds the server in its lame duck; the time for replies has passed long ago."""
    async with anyio.create_task_group() as tasks:
        session = Session(apart, tasks, DrainPolicy(lame_duck_period=1, grace_period=2))
        session.begin()
        await anyio.sleep(60)
        session.say(text("a"))
        await session.open()
        with anyio.fail_after(PATIENCE):
            await session.over.wait()
    assert session.sent == [ACCEPT, reply("hello"), reply("a"), CLOSE] or session.sent == [
        ACCEPT,
        reply("hello"),
        CLOSE,
    ]
    assert session.closed_at <= 61.2


@pytest.mark.parametrize("app", [apart, collect])
async def test_a_drain_called_off_while_a_reply_is_awaited_closes_nothing(app: App) -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(app, tasks, SHORT).open()
        session.say(text("a"))
        session.begin()
        await anyio.sleep(0.1)
        session.drainer.resume()
        await anyio.sleep(20)
        assert CLOSE not in session.sent
        session.say(text("b"))
        await anyio.sleep(60)
        assert CLOSE not in session.sent
        session.begin()
        await session.over.wait()
    assert session.sent[-1] == CLOSE


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_message_that_waits_for_a_second_drain_does_not_keep_the_loop_busy() -> None:
    """In real time: virtual time would stand still while the loop is busy."""
    async with anyio.create_task_group() as tasks:
        session = await Session(lambda *call: apart(*call, work=1), tasks, SHORT).open()
        session.say(text("question"))
        await eventually(lambda: session.sent[-1] == reply("question"), "the handler replies")
        for first, second in ("ab", "cd"):
            session.say(text(first))
            await anyio.wait_all_tasks_blocked()
            session.begin()
            for _ in range(10 * READ_TURNS):
                await anyio.lowlevel.checkpoint()
            session.say(text(second))
            before = time.thread_time()
            await anyio.sleep(0.5)
            busy = time.thread_time() - before
            assert session.scope["given"][-1] == first, "the second message is held back"
            session.drainer.resume()
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert session.scope["given"] == ["question", "a", "b", "c", "d"]
    assert busy < 0.2


async def test_a_request_in_a_quiet_period_does_not_put_off_a_close_that_is_due() -> None:
    policy = DrainPolicy(lame_duck_period=10, quiet_period=1, grace_period=30)
    async with anyio.create_task_group() as tasks:
        session = await Session(lambda *call: echo(*call, work=5), tasks, policy).open()
        session.say(text("a"))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(session.drain)
        await anyio.sleep(4.8)
        session.drainer._last_arrival = session.drainer.now()
    assert session.sent == [ACCEPT, reply("a"), CLOSE]
    assert session.closed_at == pytest.approx(5, abs=0.2)


# A handler that does something else than wait for a message


def pushes(*said: str, every: float = 0.3, receives: int = 0) -> App:
    """Return an app that sends over and over, after it has received so many messages."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        for _ in range(receives):
            assert (await receive())["type"] == "websocket.receive"
        while True:
            for one in said or ("tick",):
                await send(reply(one))
                await anyio.sleep(every)

    return app


async def drained_together(
    app: App, count: int, *said: str, after: float = 0.0, policy: DrainPolicy = POLICY
) -> list[float]:
    """Drain so many sessions of one drainer, and return when each was closed."""
    async with anyio.create_task_group() as tasks:
        sessions = [Session(app, tasks, policy) for _ in range(count)]
        for session in sessions[1:]:
            session.join(sessions[0])
        for session in sessions:
            for one in said:
                session.say(text(one))
            tasks.start_soon(session.run)
        await anyio.sleep(0.01 + after)
        await sessions[0].drain()
        assert sessions[0].drainer.report().clean
    began = sessions[0].began
    return sorted(session.closed_at + session.began - began for session in sessions)


async def test_a_handler_that_only_sends_is_closed_between_two_of_its_sends() -> None:
    learnt: list[BaseException] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await pushes("tick", every=0.2)(scope, receive, send)
        except OSError as exc:
            learnt.append(exc)
            raise

    async with anyio.create_task_group() as tasks:
        session = await Session(app, tasks).open()
        await session.drain()
    assert session.sent[-1] == CLOSE
    assert 0 < session.closed_at < 10
    assert [type(exc) for exc in learnt] == [ClosedError]
    assert session.error is None
    assert session.drainer.report().clean


@pytest.mark.parametrize(
    ("app", "said"),
    [
        pytest.param(pushes(), [], id="only sends"),
        pytest.param(pushes(every=3600), [], id="waits for something else"),
        pytest.param(pushes(receives=1), ["subscribe"], id="was asked to, long ago"),
    ],
)
async def test_the_closes_of_such_handlers_are_spread_over_the_lame_duck(
    app: App, said: list[str]
) -> None:
    policy = DrainPolicy(lame_duck_period=2, grace_period=10)
    closed = await drained_together(app, 40, *said, after=RECENT_PERIOD + 1, policy=policy)
    assert closed[-1] <= 2.1
    windows = [sum(begin <= at < begin + 0.1 for at in closed) for begin in closed]
    assert max(windows) <= 8, "not more than a fifth in any 100 ms"


async def test_so_are_those_of_handlers_that_send_in_one_task_and_were_asked_to_just_now() -> None:
    """Their message may be the reply. Each is waited for as long as the others."""
    policy = DrainPolicy(lame_duck_period=2, grace_period=10)
    closed = await drained_together(ticker, 40, "subscribe", policy=policy)
    assert 5 < closed[0] < closed[-1] < 7.1
    windows = [sum(begin <= at < begin + 0.1 for at in closed) for begin in closed]
    assert max(windows) <= 8


async def test_a_handler_that_waits_for_something_else_is_cancelled_when_it_has_been_closed() -> (
    None
):
    left: list[float] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        await send(reply("hello"))
        try:
            await anyio.sleep_forever()  # until something happens, which may be never
        finally:
            left.append(session.now())

    async with anyio.create_task_group() as tasks:
        session = Session(app, tasks)
        await session.open()
        await session.drain()
    assert left == [pytest.approx(session.closed_at + NOTICE_PERIOD, abs=0.01)]
    assert session.error is None
    assert session.drainer.report().clean, "its client lacks nothing"


async def test_a_server_that_does_not_end_the_receive_of_a_closed_session_harms_nobody() -> None:
    """ASGI has it do so; the handler is cancelled where it does not."""
    async with anyio.create_task_group() as tasks:
        session = Session(echo, tasks)

        async def between(message: Message, take: Send) -> None:
            await take(message)
            if message["type"] == "websocket.close":
                session.say_no_more()

        session.between = between
        await session.open()
        await session.drain()
    assert session.sent == [ACCEPT, CLOSE]
    assert session.drainer.report().elapsed < 11
    assert session.drainer.report().clean


async def test_a_handler_that_does_nothing_but_wait_in_send_is_closed_after_one() -> None:
    """A reader that is slower than the app: there is no moment between two sends but that."""

    async def firehose(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        while True:
            await send(reply("more"))

    async with anyio.create_task_group() as tasks:
        session = Session(firehose, tasks)

        async def between(message: Message, take: Send) -> None:
            await anyio.sleep(0.4)
            await take(message)

        session.between = between
        await session.open()
        await session.drain()
    assert session.sent[-1] == CLOSE
    assert session.closed_at < 11
    assert session.drainer.report().clean


async def test_a_reply_in_parts_by_the_task_that_receives_goes_out_whole() -> None:
    """The handler does not wait for a message in between; nor does one that sends for ever."""

    async def tokens(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            for number in range(100):
                await anyio.sleep(0.3)
                await send(reply(f"token {number}"))

    async with anyio.create_task_group() as tasks:
        session = await Session(tokens, tasks).open()
        session.say(text("prompt"))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.sent[1:-1] == [reply(f"token {number}") for number in range(100)]
    assert session.sent[-1] == CLOSE
    assert session.closed_at == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("said", [[], ["subscribe"]])
async def test_where_somebody_waits_a_handler_that_sends_is_closed_at_once(said: list[str]) -> None:
    """Ctrl+C, `--reload`: what was asked for just now may be a reply, and gets a second."""
    async with anyio.create_task_group() as tasks:
        session = await Session(pushes(receives=len(said)), tasks).open()
        for one in said:
            session.say(text(one))
        await anyio.sleep(1)
        session.begin()
        session.drainer.stop("SIGINT", lame_duck=False)
        await session.over.wait()
    assert session.sent[-1] == CLOSE
    assert session.closed_at <= (HURRIED_PERIOD + 0.4 if said else 0.1)


async def test_where_somebody_waits_a_handler_at_work_replies_all_the_same() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(slow_echo, tasks).open()
        session.say(text("a lot"))
        await anyio.wait_all_tasks_blocked()
        session.begin()
        session.drainer.stop("SIGINT", lame_duck=False)
        await session.over.wait()
    assert session.sent == [ACCEPT, reply("a lot"), CLOSE]


# What the server has read


async def test_what_the_server_has_read_is_given_to_a_handler_that_has_yet_to_ask() -> None:
    """Its client's own close above all: the client has seen that acknowledged."""
    given: list[Message] = []
    close: Message = {"type": "websocket.disconnect", "code": 1000, "reason": "bye"}

    async def slow_at_first(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        await anyio.sleep(12)  # looks something up, and the lame duck passes
        while (message := await receive())["type"] == "websocket.receive":
            given.append(message)
        given.append(message)

    async with anyio.create_task_group() as tasks:
        session = await Session(slow_at_first, tasks).open()
        for number in range(10):
            session.say(text(str(number)))
        session.say(close)
        await session.drain()
    assert given == [*(text(str(number)) for number in range(10)), close]
    assert session.sent == [ACCEPT]
    assert session.drainer.report().clean


async def test_what_such_a_handler_has_been_given_is_answered_before_the_close() -> None:
    async def slow_at_first(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        await anyio.sleep(12)
        while (message := await receive())["type"] == "websocket.receive":
            await anyio.sleep(0.5)
            await send(reply(message["text"]))
        assert message == DISCONNECT

    async with anyio.create_task_group() as tasks:
        session = await Session(slow_at_first, tasks).open()
        for number in range(10):
            session.say(text(str(number)))
        await session.drain()
    assert session.error is None
    assert session.sent == [ACCEPT, *(reply(str(number)) for number in range(10)), CLOSE]
    assert session.closed_at == pytest.approx(17, abs=0.2)


async def test_what_nobody_ever_asks_for_holds_the_close_for_half_the_grace_period() -> None:
    async with anyio.create_task_group() as tasks:
        session = await Session(pushes(), tasks, SHORT).open()
        session.say(text("is anybody there?"))
        await session.drain()
    assert session.sent[-1] == CLOSE
    assert session.closed_at == pytest.approx(5, abs=0.1)
    assert session.drainer.report().clean


async def test_a_handler_that_asks_while_the_server_is_asked_for_it_gets_its_messages() -> None:
    async with anyio.create_task_group() as tasks:
        told = anyio.Event()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            assert await receive() == CONNECT
            await send(ACCEPT)
            await told.wait()
            assert await receive() == text("just in time")
            await send(reply("you were"))
            assert await receive() == DISCONNECT

        session = await Session(app, tasks, DrainPolicy(lame_duck_period=0)).open()
        session.begin()
        await anyio.sleep(READ_PERIOD / 2)
        told.set()
        await anyio.lowlevel.checkpoint()
        session.say(text("just in time"))
        with anyio.fail_after(PATIENCE):
            await session.over.wait()
    assert session.error is None
    assert session.sent == [ACCEPT, reply("you were"), CLOSE]


async def test_a_message_that_crosses_the_close_is_not_given_to_the_handler() -> None:
    """Its client sends it again: it has had no reply."""
    async with anyio.create_task_group() as tasks:
        session = Session(echo, tasks)

        async def between(message: Message, take: Send) -> None:
            if message["type"] == "websocket.close":
                session.say(text("too late"))
            await take(message)

        session.between = between
        await session.open()
        await session.drain()
    assert session.error is None
    assert session.sent == [ACCEPT, CLOSE]


async def test_a_disconnect_without_a_code_of_the_clients_has_ours() -> None:
    """uvicorn's `websockets` protocol says 1005 after a close of the app's."""
    async with anyio.create_task_group() as tasks:
        session = Session(echo, tasks)

        async def between(message: Message, take: Send) -> None:
            if message["type"] == "websocket.close":
                session.sent.append(message)
                session.times.append(session.now())
                session.say({"type": "websocket.disconnect", "code": 1005})
            else:
                await take(message)

        session.between = between
        await session.open()
        await session.drain()
    assert session.error is None, "echo wants to see 1012"
    assert session.sent == [ACCEPT, CLOSE]


# A handshake


@pytest.mark.parametrize("on_cancel", ["unwinds", "returns", "goes on"])
async def test_a_handshake_that_is_never_decided_gets_503_at_the_deadline(on_cancel: str) -> None:
    async def undecided(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        with anyio.CancelScope(shield=on_cancel == "goes on"):
            try:
                await anyio.sleep(100)
            except asyncio.CancelledError:
                if on_cancel == "unwinds":
                    raise
                if on_cancel == "goes on":
                    await anyio.sleep(100)

    async with anyio.create_task_group() as tasks:
        session = Session(undecided, tasks)
        session.scope["extensions"] = {"websocket.http.response": {}}
        await session.open()
        await session.drain()
        tasks.cancel_scope.cancel()
    start, body = session.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert b"retry-after" in dict(start["headers"])
    assert body["type"] == "websocket.http.response.body"
    assert session.drainer.report().cancelled == 1


# Told by policy, or by the app


async def test_with_finish_a_session_goes_on_until_the_grace_period_ends() -> None:
    policy = DrainPolicy(lame_duck_period=1, grace_period=3, websockets="finish")
    async with anyio.create_task_group() as tasks:
        session = await Session(echo, tasks, policy).open()
        tasks.start_soon(session.drain)
        await anyio.sleep(3.5)
        session.say(text("still here"))
    assert session.sent == [ACCEPT, reply("still here"), CLOSE]
    assert session.closed_at == pytest.approx(4, abs=0.1)
    assert session.drainer.report().cancelled == 1


async def test_a_handler_that_says_so_in_a_drain_is_closed_at_once() -> None:
    async def willing(scope: Any, receive: Receive, send: Send) -> None:
        notice = drain_notice(scope)
        assert await receive() == CONNECT
        await send(ACCEPT)
        assert (await receive())["type"] == "websocket.receive"
        await notice.wait()
        for number in range(1000):
            await send(reply(str(number)))
            await anyio.sleep(0.1)
            if number == 10:
                notice.close_on_drain()

    async with anyio.create_task_group() as tasks:
        session = await Session(willing, tasks).open()
        session.say(text("subscribe"))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.closed_at == pytest.approx(1.1, abs=0.15)
    assert session.drainer.report().clean


@pytest.mark.parametrize("receives", [True, False])
async def test_a_handler_that_says_so_before_its_planned_close_is_closed_once(
    receives: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The close that it asks for still waits for a reply when the planned one is due, after 5 s."""
    receiving = 0

    async def willing(scope: Any, receive: Receive, send: Send) -> None:
        notice = drain_notice(scope)
        assert await receive() == CONNECT
        await send(ACCEPT)
        assert (await receive())["type"] == "websocket.receive"
        await notice.wait()
        await anyio.sleep(1)
        notice.close_on_drain()
        await anyio.sleep(7)
        await send(reply("a"))
        if receives:
            assert await receive() == DISCONNECT
        else:
            await anyio.sleep(60)

    class OneReader(Session):
        async def receive(self) -> Message:
            nonlocal receiving
            assert not receiving, "as the legacy implementation of websockets"
            receiving += 1
            try:
                return await super().receive()
            finally:
                receiving -= 1

    async with anyio.create_task_group() as tasks:
        session = await OneReader(willing, tasks).open()
        session.say(text("a"))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.sent == [ACCEPT, reply("a"), CLOSE]
    assert session.closed_at == pytest.approx(8, abs=0.2)
    assert session.drainer.report().clean
    assert "failed" not in caplog.text


async def test_with_finish_a_handler_may_let_its_session_be_closed_all_the_same() -> None:
    async def willing(scope: Any, receive: Receive, send: Send) -> None:
        drain_notice(scope).close_on_drain()
        await echo(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        session = await Session(
            willing, tasks, DrainPolicy(lame_duck_period=10, websockets="finish")
        ).open()
        await session.drain()
    assert session.sent == [ACCEPT, CLOSE]
    assert session.closed_at < 10
    assert session.drainer.report().clean


# After the close


async def test_what_the_app_sends_after_the_close_is_an_oserror() -> None:
    seen: list[BaseException] = []

    async def goes_on(scope: Any, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        try:
            await send(reply("are you there?"))
        except OSError as exc:
            seen.append(exc)
        await send({"type": "websocket.close", "code": 1000})  # as frameworks do: it is closed
        await send(reply("still?"))

    async with anyio.create_task_group() as tasks:
        session = await Session(goes_on, tasks).open()
        await session.drain()
    assert [type(exc) for exc in seen] == [ClosedError]
    assert "/ws" in str(seen[0])
    assert session.sent == [ACCEPT, CLOSE]
    assert session.error is None, "that the app let it out is no error of the server's"


async def test_a_task_that_sends_as_another_gets_the_disconnect_is_cancelled_by_that() -> None:
    """Frameworks log what a send raises: Strawberry a traceback for each subscription."""
    raised: list[OSError] = []

    class DueAtTheClose(Session):
        due = anyio.Event()

        async def send(self, message: Message) -> None:
            if message == CLOSE:
                self.due.set()  # before the disconnect is there
            await super().send(message)

    async def subscription(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)

        async def push() -> None:
            await session.due.wait()
            try:
                await send(reply("tick"))
            except OSError as exc:
                raised.append(exc)

        async with anyio.create_task_group() as both:
            both.start_soon(push)
            assert await receive() == DISCONNECT
            both.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        session = DueAtTheClose(subscription, tasks)
        await session.open()
        await session.drain()
    assert session.sent == [ACCEPT, CLOSE]
    assert raised == []


async def test_an_error_of_the_apps_own_is_passed_on() -> None:
    async def fails(scope: Any, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        raise ValueError("in the clean-up")

    async with anyio.create_task_group() as tasks:
        session = await Session(fails, tasks).open()
        await session.drain()
    assert isinstance(session.error, ValueError)


async def test_a_close_that_the_server_cannot_take_harms_nobody() -> None:
    async with anyio.create_task_group() as tasks:
        session = Session(echo, tasks)

        async def between(message: Message, take: Send) -> None:
            if message["type"] == "websocket.close":
                raise RuntimeError("Unexpected ASGI message 'websocket.close'")
            await take(message)

        session.between = between
        await session.open()
        await session.drain()
    assert session.error is None
    assert session.drainer.report().closed == 1


async def test_a_cancellation_while_it_waits_for_a_message_is_passed_on() -> None:
    async with anyio.create_task_group() as tasks:
        session = Session(echo, tasks)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as server:
                server.start_soon(session.run)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
    assert isinstance(session.error, anyio.get_cancelled_exc_class())
    assert session.drainer.statistics().in_flight == 0


async def test_a_starlette_handler_sees_the_disconnect_as_it_would_any_other() -> None:
    seen: list[tuple[int, str]] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            async for said in iterate(websocket):
                await websocket.send_text(said)
        except WebSocketDisconnect as gone:
            seen.append((gone.code, gone.reason))

    async def iterate(websocket: WebSocket) -> AsyncIterator[str]:
        while True:
            yield await websocket.receive_text()

    app = Starlette(routes=[WebSocketRoute("/ws", handler)])
    async with anyio.create_task_group() as tasks:
        session = await Session(app, tasks).open()
        session.say(text("hello"))
        await anyio.wait_all_tasks_blocked()
        await session.drain()
    assert session.error is None
    assert [message["type"] for message in session.sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert seen == [(1012, "service restart")]
