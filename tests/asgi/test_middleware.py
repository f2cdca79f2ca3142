"""`GracefulMiddleware`: what it leaves alone, which drain a call belongs to, and its lifespan."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import fastapi
import httpx
import pytest
from support.asgi import (
    END,
    OK,
    App,
    Call,
    Message,
    Receive,
    Send,
    answer,
    http_scope,
    serving,
    websocket_scope,
    with_lifespan,
)
from support.polling import PATIENCE
from support.records import event

from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware, Phase, drain_notice
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi.errors import GracefulError, MisuseError

pytestmark = pytest.mark.anyio

PATIENT = DrainPolicy(lame_duck_period=60, grace_period=60)
QUICK = DrainPolicy(lame_duck_period=60, grace_period=0.02, cancel_period=PATIENCE)


class Boom(Exception):
    pass


async def waits(scope: Any, receive: Receive, send: Send) -> None:
    """The app that answers once its client goes on."""
    await receive()
    await answer(scope, receive, send)


class Gate:
    """An app that answers as soon as the test says so."""

    def __init__(self) -> None:
        self.open = anyio.Event()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "test.inside"})
        await self.open.wait()
        await answer(scope, receive, send)


# Making one


def test_a_policy_and_a_drainer_at_once_are_refused() -> None:
    with pytest.raises(MisuseError, match=r"policy= and drainer=") as raised:
        GracefulMiddleware(answer, policy=PATIENT, drainer=Drainer(PATIENT))
    assert isinstance(raised.value, RuntimeError)
    assert isinstance(raised.value, GracefulError)


def test_the_drainer_is_the_given_one_or_made_of_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drainer = Drainer(PATIENT)
    assert GracefulMiddleware(answer, drainer=drainer).drainer is drainer
    assert GracefulMiddleware(answer, policy=PATIENT).drainer.policy == PATIENT
    monkeypatch.setenv("GRACEFUL_GRACE_PERIOD", "3")
    middleware = GracefulMiddleware(answer, grace_period=5, cancel_period=4)
    assert middleware.drainer.policy == DrainPolicy(grace_period=3, cancel_period=4)


# What it leaves alone


async def test_what_the_app_returns_is_returned() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> Any:
        return f"the app's {scope['type']}"

    for scope in (http_scope(), websocket_scope(), {"type": "lifespan"}, {"type": "custom"}):
        call = await Call(GracefulMiddleware(app, policy=PATIENT), scope).run()
        assert call.returned == f"the app's {scope['type']}"


async def test_an_unknown_scope_goes_to_the_app_as_it_came() -> None:
    seen: list[tuple[Any, Any, Any]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    scope = {"type": "custom", "state": {}}
    call = Call(app, scope)
    receive, send = call.receive, call.send
    await GracefulMiddleware(app, policy=PATIENT)(scope, receive, send)
    assert seen == [(scope, receive, send)]
    assert scope == {"type": "custom", "state": {}}


async def test_the_apps_own_state_is_left_to_it() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["state"]))

    middleware = GracefulMiddleware(with_lifespan(app), policy=PATIENT)
    async with serving(middleware) as server:
        assert server.state is not None
        server.state["database"] = "connected"
        await server.get()
        await server.get()
    assert [state["database"] for state in seen] == ["connected"] * 2
    assert seen[0].keys() == seen[1].keys()


@pytest.mark.parametrize("state", [True, False])
async def test_the_lifespan_scope_gets_no_state_that_the_server_does_not_know(state: bool) -> None:
    """starlette tells an app that relies on it; a state made up here would never reach a call."""
    seen: list[bool] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append("state" in scope)

    middleware = GracefulMiddleware(app, policy=PATIENT)
    async with serving(middleware, state=state):
        pass
    assert seen == [state]


@pytest.mark.parametrize("draining", [False, True])
async def test_an_error_of_the_app_is_passed_on(draining: bool) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise Boom

    middleware = GracefulMiddleware(app, policy=PATIENT)
    call = await Call(middleware, http_scope()).run()
    if draining:
        middleware.drainer.begin("test")
        call = await Call(middleware, http_scope()).run()
    assert isinstance(call.error, Boom)
    assert not call.sent


async def test_an_app_that_starts_twice_or_never_is_left_to_the_server() -> None:
    async def twice(scope: Any, receive: Receive, send: Send) -> None:
        await send({**OK})
        await send({**OK})
        await send({**END})

    async def never(scope: Any, receive: Receive, send: Send) -> None:
        return None

    call = await Call(GracefulMiddleware(twice, policy=PATIENT), http_scope()).run()
    assert call.sent == [OK, OK, END]
    call = await Call(GracefulMiddleware(never, policy=PATIENT), http_scope()).run()
    assert call.sent == []


# Whose drain a call belongs to


async def test_twice_in_one_app_is_one_drain() -> None:
    counts: list[int] = []
    inner_drainer = DrainRunner(PATIENT)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        counts.append(outer.drainer.statistics().in_flight)
        await answer(scope, receive, send)

    inner = GracefulMiddleware(with_lifespan(app), drainer=as_drainer(inner_drainer))
    outer = GracefulMiddleware(inner, policy=PATIENT)
    async with serving(outer) as server:
        await server.get()
        outer.drainer.begin("test")
        call = await server.get()
        await server.call(websocket_scope(), {"type": "websocket.connect"}).run()
        await server.shut_down()
    assert call.header(b"connection") == b"close"
    assert counts == [1, 1, 1]
    assert inner_drainer.phase is Phase.SERVING
    assert inner_drainer.statistics().in_flight == 0
    assert outer.drainer.report().completed == 2


async def test_two_servers_of_one_app_object_do_not_see_each_other() -> None:
    middleware = GracefulMiddleware(with_lifespan(waits), policy=QUICK)
    async with serving(middleware) as first, serving(middleware) as second:
        kept = await second.begin(http_scope())
        ended = await first.begin(http_scope())
        await first.shut_down()
        assert ended.status == 503
        assert not kept.over.is_set()
        call = second.call(http_scope(), {"type": "http.request"})
        assert (await call.run()).header(b"connection") is None
        await second.shut_down()
        with anyio.fail_after(PATIENCE):
            await kept.over.wait()
    assert kept.status == 503


async def test_two_servers_share_the_drain_of_a_drainer_they_were_given() -> None:
    """The caller of `Drainer()` wants this one."""
    drainer = DrainRunner(PATIENT)
    middleware = GracefulMiddleware(with_lifespan(answer), drainer=as_drainer(drainer))
    async with serving(middleware) as first, serving(middleware) as second:
        drainer.begin("test")
        assert (await first.get()).header(b"connection") == b"close"
        assert (await second.get()).header(b"connection") == b"close"


async def test_a_server_that_starts_in_mid_drain_does_not_disturb_it() -> None:
    """Though both have one drainer: the first has promised its requests a grace period."""
    middleware = GracefulMiddleware(with_lifespan(waits), drainer=Drainer(PATIENT))
    async with serving(middleware) as first:
        call = await first.begin(http_scope())
        first.tell_to_shut_down()
        await anyio.wait_all_tasks_blocked()
        async with serving(middleware):
            await anyio.wait_all_tasks_blocked()
            assert not call.over.is_set()
            assert not first.over.is_set()
            assert middleware.drainer.phase is Phase.DRAINING


@pytest.mark.parametrize("given", [False, True])
async def test_a_server_started_after_the_first_has_ended_serves(given: bool) -> None:
    app = with_lifespan(answer)
    drainer = DrainRunner(PATIENT)
    middleware = (
        GracefulMiddleware(app, drainer=as_drainer(drainer))
        if given
        else GracefulMiddleware(app, policy=PATIENT)
    )
    for _ in range(3):
        async with serving(middleware) as server:
            assert middleware.drainer.statistics().phase is Phase.SERVING
            assert (await server.get()).header(b"connection") is None
            await server.shut_down()
            assert middleware.drainer.statistics().phase is Phase.STOPPED


async def test_a_server_started_after_one_that_was_cut_off_serves() -> None:
    """A lifespan whose task was cancelled in mid-drain leaves nothing behind."""
    middleware = GracefulMiddleware(with_lifespan(waits), policy=PATIENT)
    async with serving(middleware) as server:
        await server.begin(http_scope())
        server.tell_to_shut_down()
        await anyio.wait_all_tasks_blocked()
        assert middleware.drainer.phase is not Phase.SERVING
    async with serving(middleware) as server:
        call = server.call(http_scope(), {"type": "http.request"})
        assert (await call.run()).status == 200
        assert call.header(b"connection") is None


async def test_calls_are_counted_where_the_server_sends_no_lifespan() -> None:
    middleware = GracefulMiddleware(waits, policy=PATIENT)
    first, second = Call(middleware, http_scope()), Call(middleware, http_scope())
    async with anyio.create_task_group() as tasks:
        for call in (first, second):
            tasks.start_soon(call.run)
            await call.running.wait()
        assert middleware.drainer.statistics().in_flight == 2
        tasks.cancel_scope.cancel()
    assert middleware.drainer.statistics().in_flight == 0


async def test_every_call_is_counted_where_the_server_hands_out_one_state_for_all() -> None:
    """asgi-lifespan does, for tests; ASGI asks for a copy."""
    gates = [Gate() for _ in range(3)]
    calls: list[Call] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await gates[len(calls) - 1](scope, receive, send)

    middleware = GracefulMiddleware(with_lifespan(app), policy=PATIENT)
    async with serving(middleware) as server, anyio.create_task_group() as tasks:
        for _ in gates:
            calls.append(Call(middleware, http_scope(state=server.state)))
            tasks.start_soon(calls[-1].run)
            await calls[-1].running.wait()
        counted = middleware.drainer.statistics().in_flight
        for gate in gates:
            gate.open.set()
    assert counted == 3


async def test_a_state_that_is_none_is_no_state() -> None:
    middleware = GracefulMiddleware(answer, policy=PATIENT)
    call = await Call(middleware, http_scope(state=None)).run()
    assert call.status == 200


async def test_a_sub_app_with_the_middleware_has_its_drain_in_the_whole_apps() -> None:
    seen: list[bool] = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(drain_notice(scope).draining)
        await answer(scope, receive, send)

    sub_app = GracefulMiddleware(handler, policy=PATIENT)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await sub_app({**scope, "root_path": "/sub"}, receive, send)

    outer = GracefulMiddleware(with_lifespan(app), policy=PATIENT)
    async with serving(outer) as server:
        outer.drainer.begin("test")
        call = await server.get("/sub/x")
    assert seen == [True]
    assert call.header(b"connection") == b"close"
    assert outer.drainer.report().completed == 1
    assert sub_app.drainer.phase is Phase.SERVING


# The lifespan of a server this package does not know


@pytest.mark.parametrize("state", [True, False])
async def test_shutdown_waits_for_requests_and_for_tracked_work(state: bool) -> None:
    gate, exported = Gate(), anyio.Event()
    order: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await gate(scope, receive, send)
        await with_lifespan(answer)(scope, receive, send)
        order.append("cleaned up")

    middleware = GracefulMiddleware(app, policy=PATIENT)

    async def export() -> None:
        with middleware.drainer.track("export"):
            await exported.wait()
        order.append("exported")

    async with serving(middleware, state=state) as server, anyio.create_task_group() as tasks:
        call = await server.begin(http_scope())
        tasks.start_soon(export)
        await anyio.wait_all_tasks_blocked()
        assert middleware.drainer.statistics().in_flight == 2
        server.tell_to_shut_down()
        await anyio.wait_all_tasks_blocked()
        assert not server.over.is_set()
        exported.set()
        await anyio.wait_all_tasks_blocked()
        assert not server.over.is_set()
        gate.open.set()
        await server.shut_down()
        assert call.over.is_set()
    assert call.status == 200
    assert call.header(b"connection") == b"close"
    assert order == ["exported", "cleaned up"]
    report = middleware.drainer.report()
    assert (report.completed, report.clean, report.reason) == (2, True, "lifespan.shutdown")


async def test_shutdown_has_no_lame_duck_for_the_listener_is_closed_by_then() -> None:
    middleware = GracefulMiddleware(with_lifespan(answer), policy=PATIENT)
    async with serving(middleware) as server:
        with anyio.fail_after(PATIENCE):
            await server.shut_down()
    assert middleware.drainer.report().elapsed < PATIENCE


async def test_a_drain_under_way_goes_on_into_the_shutdown() -> None:
    middleware = GracefulMiddleware(with_lifespan(answer), policy=PATIENT)
    async with serving(middleware) as server:
        middleware.drainer.begin("drain endpoint")
        await server.get()
        with anyio.fail_after(PATIENCE):
            await server.shut_down()
    assert middleware.drainer.phase is Phase.STOPPED
    assert middleware.drainer.report().reason == "drain endpoint"
    assert middleware.drainer.report().completed == 1


async def test_a_startup_that_fails_is_passed_on() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    middleware = GracefulMiddleware(app, policy=PATIENT)
    async with serving(middleware) as server:
        assert server.sent == [{"type": "lifespan.startup.failed", "message": "no database"}]
        await server.over.wait()
    assert middleware.drainer.phase is Phase.SERVING


async def test_an_app_that_knows_no_lifespan_says_so_itself() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise Boom
        await answer(scope, receive, send)

    middleware = GracefulMiddleware(app, policy=PATIENT)
    async with serving(middleware) as server:
        assert isinstance(server.error, Boom)
        middleware.drainer.begin("test")
        assert (await server.get()).header(b"connection") == b"close"


async def test_a_shutdown_that_fails_is_passed_on_and_the_drain_is_over() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise Boom

    middleware = GracefulMiddleware(app, policy=PATIENT)
    async with serving(middleware) as server:
        await server.shut_down()
    assert isinstance(server.error, Boom)
    assert middleware.drainer.phase is Phase.STOPPED


async def test_unknown_messages_of_a_lifespan_are_passed_on() -> None:
    seen: list[Message] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(await receive())

    custom: Message = {"type": "lifespan.custom"}
    await Call(GracefulMiddleware(app, policy=PATIENT), {"type": "lifespan"}, custom).run()
    assert seen == [custom]
    assert seen[0] is custom


async def test_the_log_says_once_that_nobody_holds_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    middleware = GracefulMiddleware(with_lifespan(answer), policy=PATIENT)
    async with serving(middleware) as server:
        for _ in range(3):
            await server.get()
        await server.shut_down()
    events = [event(record) for record in caplog.records]
    assert events.count("drain.passive") == 1
    assert events[-1] == "drain.report"
    assert len(events) < 10, "nothing per request"


@pytest.mark.parametrize("state", [True, False])
async def test_a_request_after_the_lifespan_finds_no_drain(state: bool) -> None:
    """A `TestClient` that its `with` block has left is used again, and knows the old state."""
    middleware = GracefulMiddleware(with_lifespan(answer), policy=PATIENT)
    async with serving(middleware, state=state) as server:
        await server.shut_down()
        call = await server.get()
    assert call.status == 200
    assert call.header(b"connection") is None


# Frameworks


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_real_framework_drains_through_add_middleware() -> None:
    app = fastapi.FastAPI()
    app.add_middleware(
        GracefulMiddleware, policy=PATIENT, readiness_path="/readyz", liveness_path="/livez"
    )
    tracked: list[int] = []

    @app.post("/items")
    async def items(request: fastapi.Request, tasks: fastapi.BackgroundTasks) -> dict[str, int]:
        body = await request.body()
        tasks.add_task(tracked.append, len(body))
        return {"length": len(body)}

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/readyz")).status_code == 200
        response = await client.post("/items", content=b"12345")
        assert response.json() == {"length": 5}
        assert "connection" not in response.headers
        middleware: Any = app.middleware_stack
        while not isinstance(middleware, GracefulMiddleware):
            middleware = middleware.app
        middleware.drainer.begin("test")
        response = await client.post("/items", content=b"123")
        assert response.headers["connection"] == "close"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
    assert tracked == [5, 3]
    assert middleware.drainer.report().completed == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_in_a_task_of_its_own_is_cancelled_there() -> None:
    """As other middleware has it, which moves the app into a task."""

    def moves(app: App) -> App:
        async def moved(scope: Any, receive: Receive, send: Send) -> None:
            await asyncio.ensure_future(app(scope, receive, send))

        return moved

    middleware = GracefulMiddleware(waits, policy=PATIENT)
    call = Call(moves(middleware), http_scope())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await call.running.wait()
        middleware.drainer.begin("test")
        middleware.drainer.abort()
        with anyio.fail_after(PATIENCE):
            await call.over.wait()
    assert call.status == 503
    assert call.error is None
