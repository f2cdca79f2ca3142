"""The paths that the middleware answers itself: for the platform, not in flight."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.asgi import Call, Receive, Send, answer, http_scope, serving, with_lifespan
from support.polling import PATIENCE, eventually

from graceful_asgi import DrainPolicy, GracefulMiddleware, Phase
from graceful_asgi._asgi.endpoints import Endpoints
from graceful_asgi._core.drainer import runner_of
from graceful_asgi.errors import PolicyError

TOKEN = "0123456789abcdef"
PATHS: Any = {
    "readiness_path": "/readyz",
    "liveness_path": "/livez",
    "drain_path": "/drain",
    "drain_token": TOKEN,
}
GOOD = [(b"authorization", f"Bearer {TOKEN}".encode())]


async def app(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    elif scope["path"] == "/wait":
        await receive()
    else:
        await answer(scope, receive, send)


def graceful(*, lame_duck_period: float = 60) -> GracefulMiddleware:
    policy = DrainPolicy(lame_duck_period=lame_duck_period, grace_period=60)
    return GracefulMiddleware(with_lifespan(app), policy=policy, **PATHS)


def text(call: Call) -> str:
    return bytes(call.message("http.response.body")["body"]).decode()


# Readiness and liveness


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_readiness_is_200_while_serving_and_503_from_the_drain_on(method: str) -> None:
    middleware = graceful()
    async with serving(middleware) as server:
        before = await server.get("/readyz", method=method)
        middleware.drainer.begin("test")
        during = await server.get("/readyz", method=method)
        middleware.drainer.resume()
        after = await server.get("/readyz", method=method)
    assert (before.status, during.status, after.status) == (200, 503, 200)
    assert before.header(b"connection") is None
    assert during.header(b"connection") == b"close"
    assert before.header(b"cache-control") == b"no-store"
    assert text(during) == "lame duck"


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_liveness_is_200_from_the_first_to_the_last(method: str) -> None:
    """A server that drains and is restarted for it loses what it drains for."""
    middleware = graceful()
    async with serving(middleware) as server:
        assert (await server.get("/livez", method=method)).status == 200
        middleware.drainer.begin("test")
        assert (await server.get("/livez", method=method)).status == 200
        middleware.drainer.abort()
        assert (await server.get("/livez", method=method)).status == 200
        assert middleware.drainer.phase is Phase.CANCELLING
        assert (await server.get("/readyz", method=method)).status == 503


async def says(value: object) -> object:
    await anyio.lowlevel.checkpoint()
    return value


def fails() -> bool:
    raise LookupError("no database")


async def fails_later() -> bool:
    await anyio.lowlevel.checkpoint()
    raise LookupError("no database")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ready", "status"),
    [
        (lambda: True, 200),
        (lambda: "yes", 200),
        (lambda: False, 503),
        (lambda: None, 503),
        (partial(says, True), 200),
        (lambda: says(False), 503),
        (fails, 503),
        (fails_later, 503),
    ],
)
async def test_readiness_asks_the_app_while_serving(
    ready: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    middleware = GracefulMiddleware(
        with_lifespan(app), readiness_path="/readyz", liveness_path="/livez", ready=ready
    )
    async with serving(middleware) as server:
        call = await server.get("/readyz")
        assert (await server.get("/livez")).status == 200
    assert call.status == status
    assert text(call) == ("serving" if status == 200 else "not ready")
    assert ("no database" in caplog.text) is (ready in (fails, fails_later))


@pytest.mark.anyio
async def test_a_draining_server_is_not_ready_whatever_the_app_says() -> None:
    asked: list[int] = []

    def ready() -> bool:
        asked.append(1)
        return True

    middleware = GracefulMiddleware(with_lifespan(app), readiness_path="/readyz", ready=ready)
    async with serving(middleware) as server:
        middleware.drainer.begin("test")
        call = await server.get("/readyz")
    assert (call.status, text(call)) == (503, "lame duck")
    assert not asked


@pytest.mark.anyio
async def test_a_drain_that_begins_while_the_app_is_asked_counts() -> None:
    async def ready() -> bool:
        middleware.drainer.begin("test")
        return True

    middleware = GracefulMiddleware(with_lifespan(app), readiness_path="/readyz", ready=ready)
    async with serving(middleware) as server:
        call = await server.get("/readyz")
    assert (call.status, text(call)) == (503, "lame duck")


def test_what_cannot_be_asked_is_refused() -> None:
    given: Any = {"ready": True}
    with pytest.raises(PolicyError, match=r"^ready=True is not allowed; allowed: a callable"):
        GracefulMiddleware(app, readiness_path="/readyz", **given)


@pytest.mark.anyio
async def test_http_2_probes_have_no_connection_header() -> None:
    middleware = graceful()
    async with serving(middleware) as server:
        middleware.drainer.begin("test")
        call = await server.get("/livez", http_version="2")
    assert call.header(b"connection") is None


@pytest.mark.anyio
async def test_a_probe_has_a_body_as_long_as_it_says() -> None:
    async with serving(graceful()) as server:
        for path in ("/readyz", "/livez", "/drain"):
            call = await server.get(path)
            assert call.header(b"content-length") == str(len(text(call))).encode()
            assert call.message("http.response.body")["more_body"] is False


@pytest.mark.anyio
async def test_probes_are_not_in_flight_and_keep_no_drain_open() -> None:
    middleware = graceful()
    async with serving(middleware) as server:
        middleware.drainer.begin("test")
        await server.get("/readyz")
        await server.get("/livez")
        counts: list[int] = []
        call = server.call(http_scope("/readyz"))

        async def between(message: Any, take: Send) -> None:
            counts.append(middleware.drainer.statistics().in_flight)
            await take(message)

        call.between = between
        await call.run()
    assert counts == [0, 0]
    report = middleware.drainer.report()
    assert (report.completed, report.rejected) == (0, 0)


@pytest.mark.anyio
async def test_other_paths_and_websockets_go_to_the_app() -> None:
    async with serving(graceful()) as server:
        for path in ("/", "/readyz/", "/readyzz", "/livez?", "/drain/x"):
            call = await server.get(path)
            assert call.returned is None
            assert call.status == 200
            assert b"cache-control" not in dict(call.start["headers"])
        scope = {**http_scope("/readyz"), "type": "websocket"}
        websocket = await server.call(scope).run()
    assert websocket.sent == [{"type": "websocket.accept"}]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("root_path", "path"),
    [
        ("/api", "/api/readyz"),  # uvicorn: what has come was /readyz
        ("/api", "/readyz"),  # hypercorn, and an app that says so itself
        (None, "/readyz"),
    ],
)
async def test_probes_are_found_below_a_root_path(root_path: str | None, path: str) -> None:
    async with serving(graceful()) as server:
        call = await server.get(path, root_path=root_path)
    assert call.status == 200
    assert text(call) == "serving"


@pytest.mark.anyio
async def test_without_probes_every_path_is_the_apps() -> None:
    middleware = GracefulMiddleware(with_lifespan(app), policy=DrainPolicy())
    async with serving(middleware) as server:
        call = await server.get("/readyz")
    assert call.sent[0]["headers"] == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("given", "answered"), [({"readiness_path": "/r"}, "/r"), ({"liveness_path": "/l"}, "/l")]
)
async def test_one_path_comes_without_the_others(given: Any, answered: str) -> None:
    middleware = GracefulMiddleware(with_lifespan(app), **given)
    async with serving(middleware) as server:
        for path in ("/r", "/l", "/drain", "/None"):
            call = await server.get(path)
            assert (b"cache-control" in dict(call.start["headers"])) is (path == answered)


# The drain endpoint


@pytest.mark.anyio
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", f"Basic {TOKEN}".encode())],
        [(b"authorization", f"Bearer {TOKEN[:-1]}".encode())],
        [(b"authorization", f"Bearer {TOKEN}x".encode())],
        [(b"authorization", f"Bearer{TOKEN}".encode())],
        [(b"authorization", f"Bearer {TOKEN.upper()}".encode())],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"x-authorization", f"Bearer {TOKEN}".encode())],
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_without_the_right_token_nothing_changes(headers: Any, method: str) -> None:
    middleware = graceful()
    async with serving(middleware) as server:
        call = await server.get("/drain", method=method, headers=headers)
    assert call.status == 401
    assert call.header(b"www-authenticate") == b"Bearer"
    assert middleware.drainer.phase is Phase.SERVING
    assert TOKEN not in text(call)


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_of_the_token_is_case_insensitive(scheme: str) -> None:
    """RFC 9110, 11.1."""
    middleware = graceful(lame_duck_period=0)
    async with serving(middleware) as server:
        headers = [(b"authorization", f"{scheme} {TOKEN}".encode())]
        assert (await server.get("/drain", headers=headers)).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_a_wrong_method_is_refused_and_told_the_right_ones(method: str) -> None:
    middleware = graceful()
    async with serving(middleware) as server:
        call = await server.get("/drain", method=method, headers=GOOD)
    assert call.status == 405
    assert call.header(b"allow") == b"GET, POST"
    assert middleware.drainer.phase is Phase.SERVING


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_drain_endpoint_answers_once_the_server_is_drained(method: str) -> None:
    middleware = graceful(lame_duck_period=0.02)
    async with serving(middleware) as server:
        request = await server.begin(http_scope("/wait"))
        drain = server.call(http_scope("/drain", method=method, headers=GOOD))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain.run)
            await middleware.drainer.wait_begun()
            await anyio.wait_all_tasks_blocked()
            assert not drain.over.is_set()
            assert middleware.drainer.statistics().in_flight == 1
            middleware.drainer.abort()
            with anyio.fail_after(PATIENCE):
                await drain.over.wait()
        assert request.over.is_set()
    assert drain.status == 503
    assert text(drain) == "forced"
    assert middleware.drainer.statistics().reason == "drain endpoint"


@pytest.mark.anyio
async def test_a_second_request_to_drain_waits_for_the_same_drain() -> None:
    middleware = graceful(lame_duck_period=0.02)
    async with serving(middleware) as server:
        first = await server.get("/drain", headers=GOOD)
        second = await server.get("/drain", headers=GOOD)
        assert middleware.drainer.phase is Phase.LAME_DUCK
    assert (first.status, second.status) == (200, 200)
    assert text(first) == text(second) == "clean"


class FakeSiblings:
    """The other processes of a server, which are as clean as they are said to be."""

    def __init__(self, *faults: str, wait: bool = False) -> None:
        self.faults = list(faults)
        self.asked: list[tuple[str, float | None]] = []
        self.may_answer = anyio.Event()
        if not wait:
            self.may_answer.set()

    async def drain(self, reason: str, *, resume_after: float | None) -> list[str]:
        self.asked.append((reason, resume_after))
        await self.may_answer.wait()
        return self.faults


@pytest.mark.anyio
async def test_the_drain_endpoint_waits_for_the_siblings() -> None:
    middleware = graceful(lame_duck_period=0)
    async with serving(middleware) as server, anyio.create_task_group() as tasks:
        siblings = runner_of(middleware.drainer).peers = FakeSiblings(wait=True)
        drain = server.call(http_scope("/drain", headers=GOOD))
        tasks.start_soon(drain.run)
        await anyio.wait_all_tasks_blocked()
        assert siblings.asked == [("drain endpoint", 30.0)]
        assert not drain.over.is_set()
        siblings.may_answer.set()
    assert (drain.status, text(drain)) == (200, "clean")


@pytest.mark.anyio
async def test_what_was_not_clean_about_the_siblings_is_said() -> None:
    middleware = graceful(lame_duck_period=0)
    async with serving(middleware) as server:
        runner_of(middleware.drainer).peers = FakeSiblings("process 8: forced", "process 9: gone")
        drain = await server.get("/drain", headers=GOOD)
    assert (drain.status, text(drain)) == (503, "process 8: forced; process 9: gone")


@pytest.mark.anyio
async def test_once_a_stop_has_come_the_siblings_are_not_waited_for() -> None:
    """The stop ends them by itself, and the server would wait for this very request."""
    middleware = graceful(lame_duck_period=0)
    async with serving(middleware) as server, anyio.create_task_group() as tasks:
        runner_of(middleware.drainer).peers = FakeSiblings(wait=True)
        drain = server.call(http_scope("/drain", headers=GOOD))
        tasks.start_soon(drain.run)
        await anyio.wait_all_tasks_blocked()
        runner_of(middleware.drainer).stop("SIGTERM")
    assert (drain.status, text(drain)) == (200, "clean")


@pytest.mark.anyio
async def test_without_the_right_token_the_siblings_are_not_asked() -> None:
    middleware = graceful(lame_duck_period=0)
    async with serving(middleware) as server:
        siblings = runner_of(middleware.drainer).peers = FakeSiblings()
        assert (await server.get("/drain")).status == 401
    assert siblings.asked == []


@pytest.mark.anyio
async def test_work_that_outlasts_the_grace_period_makes_the_answer_forced() -> None:
    policy = DrainPolicy(lame_duck_period=0, grace_period=0.05)
    middleware = GracefulMiddleware(with_lifespan(app), policy=policy, **PATHS)
    async with serving(middleware) as server:
        await server.begin(http_scope("/wait"))
        drain = await server.get("/drain", headers=GOOD)
        assert middleware.drainer.phase is Phase.LAME_DUCK
    assert (drain.status, text(drain)) == (503, "forced")


@pytest.mark.anyio
@pytest.mark.parametrize("client_stays", [True, False])
async def test_a_drain_that_no_stop_follows_is_undone(client_stays: bool) -> None:
    """A liveness restart runs the hook, too; and kubelet may have given up on it."""
    policy = DrainPolicy(lame_duck_period=0.1, termination_grace_period=0.3)
    middleware = GracefulMiddleware(with_lifespan(app), policy=policy, **PATHS)
    async with serving(middleware) as server, anyio.create_task_group() as tasks:
        drain = server.call(http_scope("/drain", headers=GOOD))
        tasks.start_soon(drain.run)
        await middleware.drainer.wait_begun()
        if not client_stays:
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await eventually(lambda: middleware.drainer.phase is Phase.SERVING)
            assert (await server.get("/readyz")).status == 200


@pytest.mark.anyio
async def test_a_drain_that_is_called_off_is_no_clean_one() -> None:
    middleware = graceful()
    async with serving(middleware) as server, anyio.create_task_group() as tasks:
        drain = server.call(http_scope("/drain", headers=GOOD))
        tasks.start_soon(drain.run)
        await middleware.drainer.wait_begun()
        await anyio.wait_all_tasks_blocked()
        middleware.drainer.resume()
    assert (drain.status, text(drain)) == (503, "resumed")


# Bad values


@pytest.mark.parametrize("name", ["readiness_path", "liveness_path", "drain_path"])
@pytest.mark.parametrize("path", ["", "readyz", "http://x/readyz", 5, b"/readyz"])
def test_a_path_that_is_none_is_refused(name: str, path: object) -> None:
    given: Any = {name: path, "drain_token": TOKEN}
    with pytest.raises(PolicyError, match=f"^{name}=.*; allowed: a path that") as raised:
        GracefulMiddleware(app, **given)
    assert repr(path) in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_one_path_for_two_questions_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"^liveness_path='/healthz'.* a path of its own"):
        GracefulMiddleware(app, readiness_path="/healthz", liveness_path="/healthz")


@pytest.mark.parametrize("token", ["", "short", TOKEN[:-1], TOKEN.encode(), 5, [TOKEN] * 16])
def test_a_token_is_16_characters_or_more(token: object) -> None:
    given: Any = {"drain_path": "/drain", "drain_token": token}
    with pytest.raises(PolicyError, match=r"^drain_token=.* 16 characters or more"):
        GracefulMiddleware(app, **given)


def test_a_drain_endpoint_without_a_token_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"^drain_path='/drain' .*16 characters or more"):
        GracefulMiddleware(app, drain_path="/drain")


def test_a_token_is_not_shown() -> None:
    """Not where configurations are printed, in a traceback's locals for one."""
    assert TOKEN not in repr(Endpoints(drain_path="/drain", drain_token=TOKEN))
    with pytest.raises(PolicyError) as raised:
        GracefulMiddleware(app, drain_path="/drain", drain_token=TOKEN[:-1])
    assert TOKEN[:-1] not in str(raised.value)
