"""The public signatures as a user writes them. Never run: `mypy --strict` reads it.

Each `type: ignore` stands at a mistake that mypy has to find: one that ignores nothing is an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from typing_extensions import assert_type

from graceful_asgi import (
    Drainer,
    DrainNotice,
    DrainPolicy,
    DrainReport,
    GracefulMiddleware,
    Phase,
    StuckWork,
    drain_notice,
)

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    notice = drain_notice(scope)
    assert_type(notice, DrainNotice)
    assert_type(notice.draining, bool)
    assert_type(notice.time_left(), float)
    assert_type(await notice.wait(), None)


class HTTPScope(TypedDict):
    type: Literal["http"]
    path: str


async def narrow(
    scope: HTTPScope,
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Declare types of its own, as Litestar's and Quart's apps do."""


def no_app() -> None: ...


def wraps_any_app() -> None:
    GracefulMiddleware(narrow)
    GracefulMiddleware(no_app)  # type: ignore[arg-type]
    app = GracefulMiddleware(plain)
    app = GracefulMiddleware(app)
    app = GracefulMiddleware(FastAPI(), policy=DrainPolicy(), readiness_path=None)
    app = GracefulMiddleware(Starlette(), drainer=Drainer())
    assert_type(app.drainer, Drainer)
    GracefulMiddleware(plain, DrainPolicy())  # type: ignore[call-arg]


def is_added_to_an_app() -> None:
    api = FastAPI()
    api.add_middleware(GracefulMiddleware)
    api.add_middleware(
        GracefulMiddleware,
        policy=DrainPolicy(lame_duck_period=5, grace_period=15),
        readiness_path="/readyz",
        liveness_path="/livez",
    )
    api.add_middleware(GracefulMiddleware, grace_period=20, websockets="finish", ready=lambda: True)
    api.add_middleware(GracefulMiddleware, grace_periood=20)  # type: ignore[call-arg]
    api.add_middleware(GracefulMiddleware, grace_period="20")  # type: ignore[arg-type]
    api.add_middleware(GracefulMiddleware, readiness="/readyz")  # type: ignore[call-arg]
    api.add_middleware(GracefulMiddleware, polcy=DrainPolicy())  # type: ignore[call-arg]
    Starlette(middleware=[Middleware(GracefulMiddleware, drainer=Drainer(DrainPolicy()))])


def makes_a_policy(choice: Literal["serve", "reject"], name: str) -> None:
    policy = DrainPolicy(
        lame_duck_period=5,
        quiet_period=None,
        grace_period=15.0,
        cancel_period=2,
        cleanup_period=5,
        new_requests=choice,
        websockets="finish",
        event_streams="finish",
        drain_on_unhandled_exception=True,
        termination_grace_period=30,
    )
    assert_type(policy.lame_duck_period, float)
    assert_type(policy.quiet_period, float | None)
    assert_type(policy.new_requests, Literal["serve", "reject"])
    assert_type(policy.total_period, float)
    assert_type(DrainPolicy.from_env(), DrainPolicy)
    assert_type(DrainPolicy.from_env({"GRACEFUL_GRACE_PERIOD": "1"}), DrainPolicy)
    DrainPolicy(5)  # type: ignore[call-arg]
    DrainPolicy(grace_perod=5)  # type: ignore[call-arg]
    DrainPolicy(grace_period="5")  # type: ignore[arg-type]
    DrainPolicy(grace_period=None)  # type: ignore[arg-type]
    DrainPolicy(new_requests=name)  # type: ignore[arg-type]
    policy.grace_period = 1  # type: ignore[misc]


async def is_ready() -> bool:
    return True


def answers_the_platform() -> None:
    GracefulMiddleware(plain, readiness_path="/readyz", ready=is_ready)
    GracefulMiddleware(plain, drain_path="/drain", drain_token="0123456789abcdef")
    GracefulMiddleware(plain, readiness_path=1)  # type: ignore[arg-type]
    GracefulMiddleware(plain, ready=True)  # type: ignore[arg-type]


async def drives_a_drainer(drainer: Drainer) -> None:
    Drainer()
    Drainer(DrainPolicy())
    assert_type(drainer.begin("reason"), bool)
    assert_type(drainer.begin("reason", lame_duck=False), bool)
    assert_type(drainer.resume(), bool)
    assert_type(drainer.abort(), bool)
    assert_type(drainer.phase, Phase)
    assert_type(drainer.policy, DrainPolicy)
    assert_type(await drainer.wait_drained(), DrainReport)
    assert_type(drainer.report(), DrainReport)
    drainer.begin("reason", False)  # type: ignore[call-arg]
    drainer.begin()  # type: ignore[call-arg]

    statistics = drainer.statistics()
    assert_type(statistics.phase, Phase)
    assert_type(statistics.in_flight, int)
    assert_type(statistics.oldest, StuckWork | None)
    assert_type(statistics.time_left, float)

    with drainer.track("nightly export"):
        pass


def hooks_into_a_drain(drainer: Drainer) -> None:
    drainer.add_hook(lambda change: change.phase)
    drainer.add_hook(lambda change: f"{change.reason}, {change.in_flight} in flight")
    drainer.add_hook(lambda: None)  # type: ignore[misc,arg-type]


def reads_a_report(report: DrainReport) -> None:
    assert_type(report.reason, str)
    assert_type(report.clean, bool)
    assert_type(report.completed, int)
    assert_type(report.closed, int)
    assert_type(report.cancelled, int)
    assert_type(report.aborted, int)
    assert_type(report.rejected, int)
    assert_type(report.server_errors, int)
    assert_type(report.elapsed, float)
    for work in report.stuck:
        assert_type(work, StuckWork)
        assert_type(work.kind, Literal["http", "websocket", "task", "lifespan"])
        assert_type((work.method, work.path, work.phase, work.where), tuple[str, str, str, str])
        assert_type(work.age, float)
    report.completed = 1  # type: ignore[misc]


async def asks_in_a_handler(request: Request, websocket: WebSocket) -> None:
    assert_type(drain_notice(request), DrainNotice)
    assert_type(drain_notice(websocket), DrainNotice)
    drain_notice("request")  # type: ignore[arg-type]


async def asks_by_dependency(notice: Annotated[DrainNotice, Depends(drain_notice)]) -> float:
    return notice.time_left()
