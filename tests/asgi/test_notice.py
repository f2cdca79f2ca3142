"""The drain as a handler sees it, in each framework."""

from __future__ import annotations

import math
from typing import Annotated, Any

import anyio
import anyio.to_thread
import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002  # fastapi looks it up at run time
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket  # noqa: TC002  # the same
from support.asgi import Call, Receive, Send, answer, http_scope, serving, websocket_scope
from support.polling import PATIENCE

from graceful_asgi import DrainNotice, DrainPolicy, GracefulMiddleware, drain_notice
from graceful_asgi._core.drainer import as_drainer
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi.errors import MisuseError

pytestmark = pytest.mark.anyio

PATIENT = DrainPolicy(lame_duck_period=60, grace_period=30)


async def test_a_notice_says_whether_the_server_drains_and_how_long_work_may_go_on() -> None:
    drainer = DrainRunner(PATIENT)
    seen: list[tuple[bool, float]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        notice = drain_notice(scope)
        seen.append((notice.draining, notice.time_left()))

    middleware = GracefulMiddleware(app, drainer=as_drainer(drainer))
    await Call(middleware, http_scope()).run()
    drainer.begin("test")
    await Call(middleware, http_scope()).run()
    drainer.stop("SIGTERM")
    await Call(middleware, websocket_scope()).run()
    assert seen[:2] == [(False, math.inf), (True, math.inf)]
    draining, left = seen[2]
    assert draining
    assert 90 - PATIENCE < left <= 90


async def test_wait_returns_as_the_drain_begins_and_at_once_when_it_has() -> None:
    drainer = DrainRunner(PATIENT)
    told = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "test.inside"})
        notice = drain_notice(scope)
        await notice.wait()
        assert notice.draining
        await notice.wait()
        told.set()

    async with anyio.create_task_group() as tasks:
        call = Call(GracefulMiddleware(app, drainer=as_drainer(drainer)), http_scope())
        tasks.start_soon(call.run)
        await call.running.wait()
        await anyio.wait_all_tasks_blocked()
        assert not told.is_set()
        drainer.begin("test")
        with anyio.fail_after(PATIENCE):
            await call.over.wait()
    assert call.error is None
    assert told.is_set()


async def test_a_notice_can_be_read_in_a_worker_thread() -> None:
    """Frameworks run handlers there that are no coroutines."""
    drainer = DrainRunner(PATIENT)
    seen: list[tuple[bool, float]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        notice = drain_notice(scope)
        drainer.begin("test")
        seen.append(await anyio.to_thread.run_sync(lambda: (notice.draining, notice.time_left())))

    await Call(GracefulMiddleware(app, drainer=as_drainer(drainer)), http_scope()).run()
    assert seen == [(True, math.inf)]


@pytest.mark.parametrize("state", [None, {}, {"mine": 1}])
async def test_without_the_middleware_the_error_says_what_to_add(state: Any) -> None:
    with pytest.raises(MisuseError, match=r"'/path'.*app\.add_middleware\(GracefulMiddleware\)"):
        drain_notice(http_scope("/path", state=state))
    with pytest.raises(MisuseError, match="GracefulMiddleware"):
        drain_notice(http_scope("/path"))


@pytest.mark.parametrize("value", [None, 3, "/path"])
async def test_an_argument_without_a_scope_is_named(value: Any) -> None:
    with pytest.raises(MisuseError, match=rf"\({value!r}\).*a request, a WebSocket or an ASGI"):
        drain_notice(value)


async def test_outside_of_a_request_there_is_no_notice() -> None:
    """In the lifespan nobody is in flight."""
    errors: list[Exception] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            drain_notice(scope)
        except MisuseError as exc:
            errors.append(exc)

    async with serving(GracefulMiddleware(app, policy=PATIENT)):
        pass
    assert len(errors) == 1


async def test_the_notice_in_front_of_the_middleware_is_an_error_too() -> None:
    inner = GracefulMiddleware(answer, policy=PATIENT)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        with pytest.raises(MisuseError):
            drain_notice(scope)
        await inner(scope, receive, send)

    assert (await Call(app, http_scope()).run()).status == 200


async def test_it_takes_the_request_and_the_websocket_of_starlette() -> None:
    seen: list[bool] = []

    async def endpoint(request: Request) -> Response:
        return JSONResponse(drain_notice(request).draining)

    async def websocket_endpoint(websocket: WebSocket) -> None:
        seen.append(drain_notice(websocket).draining)
        await websocket.accept()
        await websocket.close()

    routes = [Route("/", endpoint), WebSocketRoute("/ws", websocket_endpoint)]
    drainer = DrainRunner(PATIENT)
    app = Starlette(routes=routes)
    app.add_middleware(GracefulMiddleware, drainer=as_drainer(drainer))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).json() is False
        drainer.begin("test")
        assert (await client.get("/")).json() is True
    await Call(app, websocket_scope(), {"type": "websocket.connect"}).run()
    assert seen == [True]


Notice = Annotated[DrainNotice, fastapi.Depends(drain_notice)]


async def test_it_is_a_dependency_of_fastapi() -> None:
    drainer = DrainRunner(PATIENT)
    app = fastapi.FastAPI()
    app.add_middleware(GracefulMiddleware, drainer=as_drainer(drainer))
    seen: list[bool] = []

    @app.get("/async")
    async def endpoint(notice: Notice) -> bool:
        return notice.draining

    @app.get("/sync")
    def in_a_thread(notice: Notice) -> bool:
        return notice.draining

    @app.get("/default")
    async def as_a_default(notice: DrainNotice = fastapi.Depends(drain_notice)) -> bool:  # noqa: B008  # FastAPI's way
        return notice.draining

    @app.websocket("/ws")
    async def websocket(connection: WebSocket, notice: Notice) -> None:
        seen.append(notice.draining)
        await connection.accept()
        await connection.close()

    paths = ["/async", "/sync", "/default"]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert [(await client.get(path)).json() for path in paths] == [False] * 3
        drainer.begin("test")
        assert [(await client.get(path)).json() for path in paths] == [True] * 3
        schema = (await client.get("/openapi.json")).json()
    assert "parameters" not in schema["paths"]["/async"]["get"], "it asks the client for nothing"
    await Call(app, websocket_scope(), {"type": "websocket.connect"}).run()
    assert seen == [True]
