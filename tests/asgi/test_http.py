"""An HTTP request: what is changed in passing, what is not, and how it ends when it must."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.asgi import (
    END,
    OK,
    QUICK,
    answer,
    app_with,
    graceful,
    hangs_after,
    http_scope,
    refused,
    run,
    serving,
    shut_down,
    started,
    websocket_scope,
)
from support.polling import PATIENCE, eventually

from graceful_asgi import DrainPolicy
from graceful_asgi._core.drainer import runner_of

if TYPE_CHECKING:
    from support.asgi import App, Call, Headers, Message, Receive, Send

pytestmark = pytest.mark.anyio

WHOLE: Message = {"type": "http.request", "body": b"all of it", "more_body": False}
PART: Message = {"type": "http.request", "body": b"a part", "more_body": True}
BODY = [(b"content-length", b"9")]


# The header


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_response_while_draining_says_connection_close(version: str) -> None:
    call = await run(answer, http_scope(http_version=version))
    assert call.header(b"connection") == b"close"
    assert call.status == 200


async def test_a_response_while_serving_is_untouched() -> None:
    sent = started((b"Connection", b"keep-alive"), (b"keep-alive", b"timeout=5"))
    call = await run(app_with(sent, END), http_scope(), begun=False)
    assert call.sent == [sent, END]


async def test_http_2_has_no_connection_header() -> None:
    call = await run(answer, http_scope(http_version="2"))
    assert call.sent == [OK, END]


@pytest.mark.parametrize("status", [100, 101, 103])
async def test_an_interim_response_and_a_switch_of_protocols_are_untouched(status: int) -> None:
    sent = started((b"connection", b"upgrade"), status=status)
    call = await run(app_with(sent), http_scope())
    assert call.sent == [sent]


async def test_the_final_response_after_an_interim_one_says_it() -> None:
    call = await run(app_with(started(status=103), started(), END), http_scope())
    final = call.sent[1]
    assert (b"connection", b"close") in final["headers"]


async def test_the_apps_own_choice_is_replaced_and_its_other_tokens_stay() -> None:
    sent = started((b"x-a", b"1"), (b"connection", b"keep-alive, x-trace"))
    call = await run(app_with(sent, END), http_scope())
    assert call.header(b"connection") == b"close, x-trace"
    assert call.header(b"x-a") == b"1"


async def test_a_request_in_flight_as_the_drain_begins_gets_the_header_too() -> None:
    middleware = graceful(app_with(OK, END, read=1))
    async with serving(middleware) as server:
        release = anyio.Event()
        call = server.call(http_scope())

        async def receive() -> Message:
            call.running.set()
            await release.wait()
            return WHOLE

        call.receive = receive  # type: ignore[method-assign]  # of this call alone
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await call.running.wait()
            middleware.drainer.begin("test")
            release.set()
    assert call.header(b"connection") == b"close"


@pytest.mark.parametrize(
    ("headers", "received", "read", "closes"),
    [
        pytest.param([], [], 0, True, id="no body"),
        pytest.param([(b"content-length", b"0")], [], 0, True, id="an empty body"),
        pytest.param(BODY, [WHOLE], 0, False, id="not read"),
        pytest.param(BODY, [PART, WHOLE], 1, False, id="read in part"),
        pytest.param(BODY, [WHOLE], 1, True, id="read"),
        pytest.param(BODY, [PART, WHOLE], 2, True, id="read in two parts"),
        pytest.param([(b"transfer-encoding", b"chunked")], [PART], 0, False, id="chunked"),
        pytest.param([(b"transfer-encoding", b"chunked")], [WHOLE], 1, True, id="chunked, read"),
    ],
)
async def test_the_header_is_held_back_while_the_request_body_is_unread(
    headers: Headers, received: list[Message], read: int, closes: bool
) -> None:
    """An early answer and a close, with the body on its way, break the client's pipe."""
    call = await run(
        app_with(OK, END, read=read), http_scope(method="POST", headers=headers), *received
    )
    assert call.header(b"connection") == (b"close" if closes else None)


async def test_a_part_of_a_body_without_a_mark_is_the_last() -> None:
    """`more_body` is optional, and false where it is missing."""
    last: Message = {"type": "http.request", "body": b"x"}
    call = await run(app_with(OK, END, read=1), http_scope(headers=BODY), last)
    assert call.header(b"connection") == b"close"


# What is passed on


async def test_unknown_messages_and_keys_pass_untouched() -> None:
    sent: list[Message] = [
        {"type": "http.response.debug", "info": {"template": "x"}},
        {"type": "http.response.early_hint", "links": [b"</a>"]},
        started((b"a", b"b"), trailers=True, custom=1),
        {"type": "http.response.body", "body": b"x", "more_body": True, "custom": 2},
        {"type": "http.response.zerocopysend", "file": 3},
        {"type": "http.response.pathsend", "path": "/a"},
        {"type": "http.response.trailers", "headers": [], "more_trailers": False},
        {"type": "http.response.push", "path": "/a", "headers": []},
    ]
    call = await run(app_with(*sent), http_scope())
    start = {**sent[2], "headers": [(b"a", b"b"), (b"connection", b"close")]}
    assert call.sent == [*sent[:2], start, *sent[3:]]


async def test_unknown_messages_to_the_app_pass_untouched() -> None:
    seen: list[Message] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.extend([await receive() for _ in range(3)])

    given: list[Message] = [{"type": "http.custom", "a": 1}, WHOLE, {"type": "http.disconnect"}]
    await run(app, http_scope(), *given)
    assert seen == given
    assert all(one is other for one, other in zip(seen, given, strict=True))


# Refused


@pytest.mark.parametrize("policy", ["reject", "cancelling"])
async def test_a_refused_request_gets_503_and_when_to_come_back(policy: str) -> None:
    ran: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        ran.append(scope)

    new_requests: Any = "reject" if policy == "reject" else "serve"
    middleware = graceful(app, DrainPolicy(new_requests=new_requests))
    async with serving(middleware) as server:
        middleware.drainer.begin("test")
        if policy == "cancelling":
            middleware.drainer.abort()
        call = await server.get()
    assert call.status == 503
    assert 1 <= int(call.header(b"retry-after") or 0) <= 5
    assert call.header(b"connection") == b"close"
    body = call.message("http.response.body")
    assert call.header(b"content-length") == str(len(body["body"])).encode()
    assert not body.get("more_body", False)
    assert not ran
    report = middleware.drainer.report()
    assert (report.rejected, report.completed) == (1, 0)
    assert report.clean
    assert middleware.drainer.statistics().in_flight == 0


async def test_a_refused_request_whose_body_is_on_its_way_keeps_its_connection() -> None:
    middleware = graceful(answer, DrainPolicy(new_requests="reject"))
    async with serving(middleware) as server:
        call = await refused(server, runner_of(middleware.drainer), http_scope(headers=BODY))
    assert call.status == 503
    assert call.header(b"connection") is None


async def test_the_clients_of_one_server_are_not_told_to_come_back_in_one_instant() -> None:
    middleware = graceful(answer, DrainPolicy(new_requests="reject"))
    async with serving(middleware) as server:
        middleware.drainer.begin("test")
        told = {(await server.get()).header(b"retry-after") for _ in range(60)}
    assert len(told) > 1


async def test_a_request_that_was_there_first_is_not_refused() -> None:
    middleware = graceful(app_with(OK, END, read=1), DrainPolicy(new_requests="reject"))
    async with serving(middleware) as server:
        first = await server.begin(http_scope())
        middleware.drainer.begin("test")
        second = await server.get()
        assert second.status == 503
        assert not first.over.is_set()
        assert middleware.drainer.statistics().in_flight == 1


# Server errors of the app

A_PART: Message = {"type": "http.response.body", "body": b"a part", "more_body": True}
GONE: Message = {"type": "http.disconnect"}


def raising_after(*messages: Message, read: int = 0) -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await app_with(*messages, read=read)(scope, receive, send)
        raise ZeroDivisionError

    return app


@pytest.mark.parametrize(
    ("app", "received", "errors"),
    [
        pytest.param(answer, [], 0, id="200"),
        pytest.param(app_with(started(status=499), END), [], 0, id="499"),
        pytest.param(app_with(started(status=500), END), [], 1, id="500"),
        pytest.param(app_with(started(status=503), END), [], 1, id="its own 503"),
        pytest.param(app_with(started(status=103), started(status=500), END), [], 1, id="103, 500"),
        pytest.param(raising_after(), [], 1, id="raises"),
        pytest.param(raising_after(started(), A_PART), [], 1, id="raises in its answer"),
        pytest.param(raising_after(started(), END), [], 0, id="raises after its answer"),
        pytest.param(raising_after(started(status=500), END), [], 1, id="500, and raises"),
        pytest.param(app_with(), [], 1, id="returns without an answer"),
        pytest.param(raising_after(started(), A_PART, read=1), [GONE], 0, id="the client has gone"),
    ],
)
async def test_a_server_error_of_the_app_is_counted_while_draining(
    app: App, received: list[Message], errors: int
) -> None:
    """It is an answer, so the drain is clean. But a drain may be the cause of it."""
    middleware = graceful(app)
    async with serving(middleware) as server:
        await server.call(http_scope(), *received).run()
        middleware.drainer.begin("test")
        await server.call(http_scope(), *received).run()
        report, now = middleware.drainer.report(), middleware.drainer.statistics()
        assert (report.completed, report.server_errors, report.clean) == (1, errors, True)
        assert (now.server_errors, now.total_server_errors) == (errors, errors)
        middleware.drainer.resume()
        middleware.drainer.begin("test again")
        now = middleware.drainer.statistics()
        assert (now.server_errors, now.total_server_errors) == (0, errors)


async def test_our_own_503_is_no_server_error_of_the_app() -> None:
    _, drainer = await shut_down(hangs_after(), http_scope())
    assert (drainer.report().cancelled, drainer.report().server_errors) == (1, 0)
    middleware = graceful(answer, DrainPolicy(new_requests="reject"))
    async with serving(middleware) as server:
        await refused(server, runner_of(middleware.drainer), http_scope())
    assert (middleware.drainer.report().rejected, middleware.drainer.report().server_errors) == (
        1,
        0,
    )


# Cancelled at the end of the grace period


async def test_a_request_that_is_not_answered_in_time_gets_503() -> None:
    call, drainer = await shut_down(hangs_after(), http_scope())
    assert call.error is None
    assert call.status == 503
    assert call.header(b"connection") == b"close"
    assert int(call.header(b"retry-after") or 0)
    report = drainer.report()
    assert (report.completed, report.cancelled, report.aborted) == (0, 1, 0)
    (stuck,) = report.stuck
    assert (stuck.kind, stuck.method, stuck.path) == ("http", "GET", "/")
    assert stuck.phase == "response not started"


async def test_in_http_2_the_503_has_no_connection_header() -> None:
    call, _ = await shut_down(hangs_after(), http_scope(http_version="2"))
    assert call.status == 503
    assert call.header(b"connection") is None


async def test_a_cut_answer_is_not_ended_as_if_it_were_whole() -> None:
    """An unknown server has to learn of it: by an error, which every server answers by a cut."""
    part: Message = {"type": "http.response.body", "body": b"a part", "more_body": True}
    call, drainer = await shut_down(hangs_after(OK, part), http_scope())
    assert call.sent == [started((b"connection", b"close")), part] or call.sent == [OK, part]
    assert call.error is not None
    assert not isinstance(call.error, asyncio.CancelledError)
    report = drainer.report()
    assert (report.completed, report.cancelled, report.aborted) == (0, 0, 1)
    assert report.stuck[0].phase == "response started"


async def test_an_answer_whose_last_part_the_server_has_not_taken_is_cut() -> None:
    """A slow reader: `send` waits. Cancelled there, the part has not gone out."""
    middleware = graceful(answer, QUICK)
    async with serving(middleware) as server:
        call = server.call(http_scope())
        waits: list[Message] = []

        async def between(message: Message, take: Send) -> None:
            if message["type"] == "http.response.body":
                waits.append(message)
                await anyio.sleep_forever()
            await take(message)

        call.between = between
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await eventually(lambda: waits)
            await server.shut_down()
            with anyio.fail_after(PATIENCE):
                await call.over.wait()
    assert [message["type"] for message in call.sent] == ["http.response.start"]
    assert call.error is not None
    assert middleware.drainer.report().aborted == 1


async def test_a_background_task_is_cancelled_without_harm_to_the_answer() -> None:
    call, drainer = await shut_down(hangs_after(OK, END), http_scope())
    assert call.error is None
    assert call.sent == [OK, END]
    assert drainer.report().cancelled == 1
    assert drainer.report().stuck[0].phase == "response complete"


async def test_a_file_sent_by_path_is_a_whole_answer() -> None:
    file: Message = {"type": "http.response.pathsend", "path": "/a"}
    call, drainer = await shut_down(hangs_after(OK, file), http_scope())
    assert call.error is None
    assert (drainer.report().cancelled, drainer.report().aborted) == (1, 0)


async def test_an_app_may_answer_in_its_own_words_when_it_is_cancelled() -> None:
    async def apologises(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await receive()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await send(started(status=500))
                await send({**END})
            raise

    call, _ = await shut_down(apologises, http_scope())
    assert call.status == 500
    assert call.error is None


async def test_an_app_that_returns_when_it_is_cancelled_is_answered_for() -> None:
    async def returns(scope: Any, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await receive()

    call, drainer = await shut_down(returns, http_scope())
    assert call.error is None
    assert call.status == 503
    assert drainer.report().cancelled == 1


async def test_an_error_in_the_unwinding_is_passed_on_after_the_503() -> None:
    async def fails(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await receive()
        finally:
            raise ValueError("in the unwinding")

    call, drainer = await shut_down(fails, http_scope())
    assert isinstance(call.error, ValueError)
    assert call.status == 503
    assert drainer.statistics().in_flight == 0


@pytest.mark.parametrize("scope", [http_scope(), websocket_scope()], ids=["http", "websocket"])
async def test_a_cancellation_that_is_not_ours_is_passed_on(scope: Any) -> None:
    middleware = graceful(hangs_after())
    async with serving(middleware) as server:
        async with anyio.create_task_group() as tasks:
            call = server.call({**scope})
            tasks.start_soon(call.run)
            await call.running.wait()
            middleware.drainer.begin("test")
            tasks.cancel_scope.cancel()
        assert isinstance(call.error, anyio.get_cancelled_exc_class())
        assert not call.sent
        assert middleware.drainer.statistics().in_flight == 0
        assert middleware.drainer.report().completed == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_of_the_servers_beside_ours_is_passed_on() -> None:
    """The server's own counts, whichever comes first: it wants its task to end."""
    if not hasattr(asyncio.Task, "uncancel"):
        pytest.skip("Python 3.10 does not count cancellations")
    middleware = graceful(hangs_after())
    async with serving(middleware) as server:
        call = server.call(http_scope())
        task = asyncio.ensure_future(call.run())
        await call.running.wait()
        middleware.drainer.begin("test")
        middleware.drainer.abort()
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
    assert task.cancelled()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_our_cancellation_leaves_the_task_as_it_was() -> None:
    """A server that goes on in the same task must not find it cancelled."""
    middleware = graceful(hangs_after())
    async with serving(middleware) as server:
        call = server.call(http_scope())

        async def serve_connection() -> str:
            await call.run()
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            return f"cancelling: {task.cancelling() if hasattr(task, 'cancelling') else 0}"

        connection = asyncio.ensure_future(serve_connection())
        await call.running.wait()
        middleware.drainer.begin("test")
        middleware.drainer.abort()
        assert await asyncio.wait_for(connection, PATIENCE) == "cancelling: 0"
    assert call.status == 503


# Answered in the place of an app that does not unwind


class Swallowing:
    """An app that is cancelled and goes on, and says something when the server has gone."""

    def __init__(self, *said: Message, error: Exception | None = None) -> None:
        self.may_go = anyio.Event()
        self._said = said
        self._error = error

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            while not self.may_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.may_go.wait()
            for message in self._said:
                await send({**message})
            if self._error is not None:
                raise self._error


async def answered_for(app: Swallowing, scope: Any, begun: Message | None = None) -> Call:
    """Shut a server down that has one such call; let the app go on then, and return the call."""
    policy = DrainPolicy(lame_duck_period=0, grace_period=0.05, cancel_period=0.1)
    middleware = graceful(app, policy)
    async with serving(middleware) as server:
        call = server.call(scope)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await eventually(lambda: middleware.drainer.statistics().in_flight)
            await server.shut_down()
            report = middleware.drainer.report()
            app.may_go.set()
            with anyio.fail_after(PATIENCE):
                await call.over.wait()
    assert (report.cancelled, report.aborted, report.clean) == (1, 0, False)
    assert middleware.drainer.report() == report, "it does not count again when it ends after all"
    return call


async def test_an_app_that_does_not_unwind_is_answered_for_at_the_end_of_the_cancel_period() -> (
    None
):
    call = await answered_for(Swallowing(), http_scope())
    assert call.status == 503
    assert call.header(b"connection") == b"close"
    assert 1 <= int(call.header(b"retry-after") or 0) <= 5
    assert call.error is None


async def test_what_it_says_after_that_goes_no_further() -> None:
    part: Message = {"type": "http.response.body", "body": b"a part", "more_body": True}
    call = await answered_for(Swallowing(OK, part, END), http_scope())
    assert [message["type"] for message in call.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert call.status == 503
    assert call.error is None


async def test_what_it_raises_after_that_is_nobodys_error() -> None:
    call = await answered_for(Swallowing(error=RuntimeError("the pool is closed")), http_scope())
    assert call.status == 503
    assert call.error is None


async def test_a_handshake_is_answered_for_as_well() -> None:
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    app = Swallowing({"type": "websocket.accept"}, {"type": "websocket.send", "text": "late"})
    call = await answered_for(app, websocket_scope(extensions=extensions))
    start, _ = call.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert call.error is None


async def test_an_app_that_has_begun_its_answer_is_not_answered_for() -> None:
    policy = DrainPolicy(lame_duck_period=0, grace_period=0.05, cancel_period=0.1)
    part: Message = {"type": "http.response.body", "body": b"a part", "more_body": True}
    go = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({**OK})
        await send(part)
        with anyio.CancelScope(shield=True):
            while not go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await go.wait()

    middleware = graceful(app, policy)
    async with serving(middleware) as server:
        call = server.call(http_scope())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await eventually(lambda: len(call.sent) == 2)
            await server.shut_down()
            go.set()
            await call.over.wait()
    assert call.sent[-1] == part
    assert middleware.drainer.report().aborted == 1
