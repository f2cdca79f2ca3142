"""The middleware in a user's own tests: a suite that passes without it passes with it."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import json
import logging
import pickle
import sys
import threading
import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from support.asgi import END, OK, Call, answer, http_scope, serving, websocket_scope, with_lifespan
from support.need import need

from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware, Phase, drain_notice
from graceful_asgi.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.testclient import TestClient


@pytest.fixture
def test_client() -> Callable[..., TestClient]:
    with warnings.catch_warnings():  # that it wants another httpx
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return TestClient


def make_app(**options: Any) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"a": 1, "b": [1]}

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(GracefulMiddleware, **options)

    @app.get("/")
    def index(request: Request) -> dict[str, bool]:
        return {"draining": drain_notice(request).draining}

    @app.get("/state")
    async def state(request: Request) -> Any:
        state = dict(request.scope.get("state", {}))
        assert copy.deepcopy(state) == json.loads(json.dumps(state)) == state
        assert pickle.loads(pickle.dumps(state)) == state
        return state

    @app.get("/scope")
    async def scope(request: Request) -> list[str]:
        kept = ("graceful_asgi", "path", "state", "type")
        return sorted(copy.deepcopy({k: v for k, v in request.scope.items() if k in kept}))

    @app.websocket("/ws")
    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    return app


def in_lifespan(client: TestClient) -> None:
    with client:
        assert client.get("/").json() == {"draining": False}
        assert client.get("/state").json() == {"a": 1, "b": [1]}


def without(client: TestClient) -> None:
    response = client.get("/")
    assert (response.status_code, response.text) == (200, '{"draining":false}')
    assert "connection" not in response.headers


def in_a_websocket(client: TestClient) -> None:
    with client.websocket_connect("/ws") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"


def in_a_thread(client: TestClient) -> None:
    threads = [threading.Thread(target=without, args=(client,)) for _ in range(4)]
    failed: list[object] = []
    threading.excepthook, hook = failed.append, threading.excepthook
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert not failed


USES = [in_lifespan, without, in_a_websocket, in_a_thread]


@pytest.mark.parametrize("first", USES)
@pytest.mark.parametrize("second", USES)
def test_a_client_is_used_again_in_any_way(
    test_client: Callable[..., TestClient], first: Any, second: Any
) -> None:
    client = test_client(make_app())
    for use in (first, second, in_lifespan, without):
        use(client)


@pytest.mark.parametrize("given", [False, True])
def test_a_drain_of_one_test_is_over_in_the_next(
    test_client: Callable[..., TestClient], given: bool
) -> None:
    drainer = Drainer(DrainPolicy(lame_duck_period=0, grace_period=1))
    app = make_app(drainer=drainer) if given else make_app()
    for _ in range(2):
        with test_client(app) as client:
            assert client.get("/").json() == {"draining": False}
            if given:
                drainer.begin("a test of the drain")
                assert client.get("/").json() == {"draining": True}
        if given:
            assert drainer.phase is Phase.STOPPED
        without(test_client(app))


def test_two_clients_at_once_are_two_servers(test_client: Callable[..., TestClient]) -> None:
    app = make_app()
    with test_client(app) as first:
        with test_client(app) as second:
            in_lifespan_state = second.get("/state").json()
            assert {key: in_lifespan_state[key] for key in "ab"} == {"a": 1, "b": [1]}
            assert second.get("/scope").json() == ["graceful_asgi", "path", "state", "type"]
        assert first.get("/").json() == {"draining": False}
        assert first.get("/scope").json() == ["graceful_asgi", "path", "state", "type"]


def test_an_option_that_is_not_allowed_is_an_error_of_the_test(
    test_client: Callable[..., TestClient],
) -> None:
    with (
        pytest.raises(PolicyError, match="'grace_periood'"),
        test_client(make_app(grace_periood=1)),
    ):
        pass


def test_it_is_quiet(
    test_client: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "graceful_asgi")
    with test_client(make_app()) as client:
        for _ in range(3):
            client.get("/")
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == []
    assert caplog.text.count("passive") == 1


@pytest.mark.anyio
async def test_asgi_lifespan_and_httpx_share_one_state_for_all_calls() -> None:
    need("asgi_lifespan")
    from asgi_lifespan import LifespanManager

    app = make_app()
    for _ in range(2):
        async with LifespanManager(app) as manager:
            transport = httpx.ASGITransport(manager.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                for _ in range(2):
                    assert (await client.get("/")).json() == {"draining": False}
                    assert (await client.get("/state")).json() == {"a": 1, "b": [1]}
                    assert (await client.get("/scope")).status_code == 200
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/")).json() == {"draining": False}


# What libraries look at


@pytest.mark.anyio
@pytest.mark.parametrize("make_scope", [http_scope, websocket_scope])
async def test_receive_and_send_are_taken_for_coroutine_functions(make_scope: Any) -> None:
    look: Any = inspect if sys.version_info >= (3, 12) else asyncio
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(look.iscoroutinefunction(each) for each in (receive, send))

    await Call(GracefulMiddleware(app), make_scope()).run()
    assert seen == [True, True]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_wsgi_app_is_served_without_a_warning() -> None:
    need("asgiref")
    wsgi_to_asgi: Any = importlib.import_module("asgiref.wsgi").WsgiToAsgi

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    app: Any = GracefulMiddleware(wsgi_to_asgi(wsgi))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        assert (await client.get("http://test/")).text == "hello"


# The state of the lifespan is the app's


@pytest.mark.anyio
async def test_the_state_holds_nothing_of_ours_while_serving_and_afterwards() -> None:
    while_starting: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while_starting.append(copy.deepcopy(scope["state"]))
            json.dumps(scope["state"])
        await with_lifespan(answer)(scope, receive, send)

    async with serving(GracefulMiddleware(app)) as server:
        assert server.state == {}
        call = await server.get()
        assert call.scope["state"] == {}
        assert copy.deepcopy(call.scope).keys() == call.scope.keys()
        await server.shut_down()
        assert server.state == {}
    assert [list(state) for state in while_starting] == [["graceful_asgi"]]


@pytest.mark.anyio
async def test_what_a_second_server_keeps_in_its_state_is_a_string_to_everybody() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((copy.deepcopy(scope["state"]), json.dumps(scope["state"])))
        seen.append(pickle.loads(pickle.dumps(scope["state"])))
        seen.append(copy.deepcopy(scope)["path"])
        await answer(scope, receive, send)

    middleware = GracefulMiddleware(with_lifespan(app))
    async with serving(middleware), serving(middleware) as second:
        call = await second.get()
        assert call.status == 200
        await second.shut_down()
        assert second.state == {}
    state = {"graceful_asgi": "server"}
    assert seen == [(state, json.dumps(state)), state, "/"]


@pytest.mark.anyio
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
async def test_a_middleware_further_out_may_copy_the_state(copied: Any) -> None:
    middleware = GracefulMiddleware(with_lifespan(answer))

    async def copies(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            scope = {**scope, "state": copied(scope["state"])}
        await middleware(scope, receive, send)

    async with serving(copies) as first, serving(copies) as second:
        assert (await first.get()).status == 200
        call = await second.get()
        assert (call.error, call.status) == (None, 200)


@pytest.mark.anyio
@pytest.mark.parametrize("make_scope", [http_scope, websocket_scope])
async def test_a_notice_outlives_its_call(make_scope: Any) -> None:
    """A background task of the app's own keeps the request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({**OK})
            await send({**END})

    middleware, scope = GracefulMiddleware(app), make_scope()
    await Call(middleware, scope).run()
    assert not drain_notice(scope).draining
    middleware.drainer.begin("test")
    assert drain_notice(scope).draining
    drain_notice(scope).close_on_drain()
    copy.deepcopy(scope)
