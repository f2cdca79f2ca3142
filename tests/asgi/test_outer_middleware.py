"""`OuterMiddleware`: one drain, whether the app has the middleware or not; on an unknown server."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from support.asgi import App, Receive, Send, answer, http_scope, serving, with_lifespan
from support.polling import eventually

from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware, Phase
from graceful_asgi._asgi.outer_middleware import OuterMiddleware

pytestmark = pytest.mark.anyio

GIVEN = {"grace_period": 0.5, "liveness_path": "/livez"}


async def test_an_app_without_the_middleware_is_drained() -> None:
    app = OuterMiddleware(with_lifespan(answer), GIVEN)
    async with serving(app) as server:
        drainer = app.drainer
        assert drainer.policy == DrainPolicy(grace_period=0.5)
        assert (await server.get("/livez")).status == 200
        assert (await server.get()).header(b"connection") is None
        drainer.begin("test")
        assert (await server.get()).header(b"connection") == b"close"
        assert drainer.statistics().completed == 1
        await server.shut_down()
        assert drainer.phase is Phase.STOPPED


async def test_the_apps_own_middleware_takes_its_place() -> None:
    own = Drainer(DrainPolicy(grace_period=9, cancel_period=8))
    app = GracefulMiddleware(with_lifespan(answer), drainer=own, readiness_path="/own")
    async with serving(OuterMiddleware(app, GIVEN)) as server:
        assert own.policy == DrainPolicy(grace_period=0.5, cancel_period=8)
        assert (await server.get("/own")).status == 200
        assert (await server.get("/livez")).message("http.response.body")["body"] == b"alive"
        own.begin("test")
        assert (await server.get()).header(b"connection") == b"close"
        assert own.statistics().completed == 1, "counted once"
        await server.shut_down()
        assert own.phase is Phase.STOPPED


TOKEN = "t" * 16


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({"drain_path": "/drain"}, {"drain_token": TOKEN}),
        ({"drain_token": TOKEN}, {"drain_path": "/drain"}),
    ],
    ids=["path", "token"],
)
async def test_the_command_line_may_give_the_path_and_the_app_the_token(
    given: dict[str, str], own: dict[str, Any]
) -> None:
    drainer = Drainer(DrainPolicy(lame_duck_period=0))
    authorization = [(b"authorization", f"Bearer {TOKEN}".encode())]

    async def starts(scope: Any, receive: Receive, send: Send) -> None:
        # As Starlette does: the middleware is made in the lifespan, in a running loop.
        app = GracefulMiddleware(with_lifespan(answer), drainer=drainer, **own)
        made.append(app)
        await app(scope, receive, send)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await (made[0] if made else starts)(scope, receive, send)

    made: list[App] = []
    async with serving(OuterMiddleware(app, given)) as server:
        assert server.error is None
        assert (await server.get("/drain")).status == 401
        assert (await server.get("/drain", headers=authorization)).status == 200
        assert drainer.phase is Phase.LAME_DUCK


async def test_a_path_without_a_token_fails_the_start_of_an_app_that_has_no_middleware() -> None:
    async with serving(OuterMiddleware(with_lifespan(answer), {"drain_path": "/drain"})) as server:
        (failed,) = server.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "without drain_token" in failed["message"]


async def test_a_call_is_counted_until_the_app_returns() -> None:
    async def waits(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await answer(scope, receive, send)

    app = OuterMiddleware(with_lifespan(waits), GIVEN)
    async with serving(app) as server:
        await server.begin(http_scope())
        assert app.drainer.statistics().in_flight == 1


def in_a_subtree(app: App) -> App:
    """Mount *app* as Starlette does: it gets no lifespan."""

    async def root(scope: Any, receive: Receive, send: Send) -> Any:
        if scope["type"] == "lifespan":
            return await with_lifespan(app)(scope, receive, send)
        return await app(scope, receive, send)

    return root


async def test_a_middleware_that_gets_no_lifespan_leaves_the_drain_to_the_outer_one() -> None:
    inner = GracefulMiddleware(answer, policy=DrainPolicy(grace_period=9))
    outer = OuterMiddleware(in_a_subtree(inner), GIVEN)
    async with serving(outer) as server:
        outer.drainer.begin("test")
        assert (await server.get()).header(b"connection") == b"close"
        assert outer.drainer.statistics().completed == 1
        assert inner.drainer.phase is Phase.SERVING


async def http_only(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    await answer(scope, receive, send)


async def test_the_middleware_of_an_app_that_knows_no_lifespan_takes_its_place_too() -> None:
    own = Drainer(DrainPolicy(grace_period=9))
    app = GracefulMiddleware(http_only, drainer=own, readiness_path="/own")
    async with serving(OuterMiddleware(app, GIVEN)) as server:
        own.begin("test")
        assert (await server.get()).header(b"connection") == b"close"
        own.resume()
        assert own.policy.grace_period == 0.5
        assert (await server.get("/own")).message("http.response.body")["body"] == b"serving"
        assert (await server.get("/livez")).message("http.response.body")["body"] == b"alive"


async def test_an_app_that_knows_no_lifespan_is_drained() -> None:
    async with serving(OuterMiddleware(http_only, GIVEN)) as server:
        assert str(server.error) == "only HTTP"
        assert (await server.get()).status == 200
        assert (await server.get("/livez")).status == 200


async def test_what_a_lifespan_sends_and_gets_is_passed_on_untouched() -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> str:
        got.append(await receive())
        await send({"type": "lifespan.startup.complete", "unknown": 1})
        got.append(await receive())
        await send({"type": "lifespan.shutdown.complete"})
        return "returned"

    async with serving(OuterMiddleware(app, GIVEN)) as server:
        await server.shut_down()
        assert got == [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        assert server.sent == [
            {"type": "lifespan.startup.complete", "unknown": 1},
            {"type": "lifespan.shutdown.complete"},
        ]


async def test_a_stop_waits_for_what_is_in_flight() -> None:
    """Without a hooked server the end of the lifespan is the only sign of its stop."""
    go_on = anyio.Event()

    async def waits(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "test.inside"})
        await go_on.wait()
        await answer(scope, receive, send)

    app = OuterMiddleware(with_lifespan(waits), {"grace_period": 60.0})
    async with serving(app) as server:
        call = await server.begin(http_scope())
        server.tell_to_shut_down()
        await eventually(lambda: app.drainer.phase is Phase.DRAINING)
        go_on.set()
        await server.shut_down()
        assert call.status == 200
        assert app.drainer.report().clean
