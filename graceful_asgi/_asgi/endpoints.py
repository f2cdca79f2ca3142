"""The paths that the middleware answers itself: readiness, liveness, drain. Never in flight."""

from __future__ import annotations

import hmac
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio

from .. import log
from .._core.begun_drain import BegunDrain
from ..errors import PolicyError, not_allowed
from ..option import Kind, Option, option, options_of, or_none
from ..phase import Phase
from . import connection_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from .._core.runner import DrainRunner
    from .._core.server_context import Peers
    from ..types import Scope, Send

    Ready: TypeAlias = Callable[[], object] | Callable[[], Awaitable[object]]
    Answer: TypeAlias = Callable[[DrainRunner, Scope, Send], Awaitable[None]]

MIN_TOKEN_LENGTH: Final = 16
"""Characters of a drain token, at the least: the token is all that keeps a client of the app from
stopping its server, and a short one can be guessed."""

REASON: Final = "drain endpoint"

PLATFORM_PERIOD: Final = 30.0
"""Seconds that Kubernetes gives by default between the beginning of preStop and SIGKILL."""

PATH: Final = Kind(
    allowed="a path that begins with '/'",
    metavar="PATH",
    accepts=lambda value: isinstance(value, str) and value.startswith("/"),
    parse=str,
)
TOKEN: Final = Kind(
    allowed=f"{MIN_TOKEN_LENGTH} characters or more",
    metavar="TOKEN",
    accepts=lambda value: isinstance(value, str) and len(value) >= MIN_TOKEN_LENGTH,
    parse=str,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Answers the platform's requests for the health paths. Immutable.

    The paths are written as the app sees them: without the root path (uvicorn's `--root-path`, a
    mount).

    Raises:
        PolicyError: (a `ValueError`) a path does not begin with `/` or is given twice, the token
            is too short, or `drain_path` has no token.
    """

    readiness_path: str | None = option(
        None,
        or_none(PATH),
        "Path that answers 200 while the server serves and `ready` agrees, and 503 from the "
        "beginning of a drain on.",
    )
    liveness_path: str | None = option(
        None,
        or_none(PATH),
        "Path that answers 200 from the start to the end, because a draining server is not broken.",
    )
    drain_path: str | None = option(
        None,
        or_none(PATH),
        "Path that begins a drain in every process of the server, by GET or POST, and answers "
        "once they are drained: 200 if that was clean, 503 with the reason if not. The drain "
        "is undone if no stop comes within `termination_grace_period` (30 s if that is None): "
        "kubelet runs a preStop hook at a liveness restart, too.",
    )
    drain_token: str | None = option(
        None,
        or_none(TOKEN),
        "Secret that a request to `drain_path` must carry in `Authorization: Bearer`. 16 "
        "characters or more.",
        secret=True,
    )
    ready: Ready | None = None
    """Returns whether the app can take requests; asked by readiness while serving."""
    _answers: Mapping[str, Answer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, each in ENDPOINT_OPTIONS.items():
            object.__setattr__(self, name, each.check(getattr(self, name)))
        if self.drain_path is not None and self.drain_token is None:
            raise PolicyError(
                f"drain_path={self.drain_path!r} is not allowed without drain_token; "
                f"allowed: a token of {TOKEN.allowed}"
            )
        answers: dict[str, Answer] = {}
        for name, answer in (
            ("readiness_path", self._answer_readiness),
            ("liveness_path", self._answer_liveness),
            ("drain_path", self._answer_drain),
        ):
            path = getattr(self, name)
            if path in answers:
                raise not_allowed(name, path, "a path of its own")
            if path is not None:
                answers[path] = answer
        object.__setattr__(self, "_answers", answers)

    @property
    def paths(self) -> Sequence[str]:
        """The paths that are answered."""
        return tuple(self._answers)

    def __bool__(self) -> bool:
        """Return whether there is any path to answer."""
        return bool(self._answers)

    def find(self, scope: Scope) -> Answer | None:
        """Return what answers the HTTP request; None where the app does."""
        # `path` may begin with the root path: where the app is mounted, or the prefix that a proxy
        # strips. The platform's probes do not pass the proxy, so theirs has no such prefix.
        return self._answers.get(scope["path"].removeprefix(scope.get("root_path") or ""))

    async def _answer_readiness(self, drainer: DrainRunner, scope: Scope, send: Send) -> None:
        is_ready = drainer.phase is Phase.SERVING and await self._is_ready()
        serving = drainer.phase is Phase.SERVING  # a drain may have begun meanwhile
        status = 200 if serving and is_ready else 503
        text = "not ready" if serving and not is_ready else drainer.phase.value
        await _answer(drainer, scope, send, status, text)

    async def _is_ready(self) -> bool:
        if self.ready is None:
            return True
        try:
            said: Any = self.ready()
            return bool(await said if inspect.isawaitable(said) else said)
        except Exception:
            log.failed("ready=%r raised, so readiness answers 503", self.ready)
            return False

    async def _answer_liveness(self, drainer: DrainRunner, scope: Scope, send: Send) -> None:
        await _answer(drainer, scope, send, 200, "alive")

    async def _answer_drain(self, drainer: DrainRunner, scope: Scope, send: Send) -> None:
        if not self._is_authorized(scope):
            await _answer(drainer, scope, send, 401, "wrong or missing token")
        elif scope["method"] not in ("GET", "POST"):
            await _answer(drainer, scope, send, 405, "GET or POST")
        else:
            faults = await _drain_all(drainer)
            text = "; ".join(faults) or "clean"
            await _answer(drainer, scope, send, 503 if faults else 200, text)

    def _is_authorized(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer":  # the name of a scheme is case-insensitive (RFC 9110, 11.1)
            return False
        return hmac.compare_digest(token.strip(b" "), str(self.drain_token).encode())


ENDPOINT_OPTIONS: Final[Mapping[str, Option]] = options_of(Endpoints)
"""The fields of `Endpoints` that are options; `ready` can be given in code only."""


async def _drain_all(drainer: DrainRunner) -> Sequence[str]:
    """Drain every process of the server; return a description of each that was not clean."""
    given = drainer.policy.termination_grace_period
    undo_period = PLATFORM_PERIOD if given is None else given
    drainer.begin(REASON, resume_after=undo_period)
    begun, faults = BegunDrain(drainer), list[str]()
    over = drainer.peers is None

    async def drain_siblings(siblings: Peers) -> None:
        nonlocal over
        faults.extend(await siblings.drain(REASON, resume_after=undo_period))
        over = True
        drainer.notifier.wake()

    async with anyio.create_task_group() as tasks:
        if drainer.peers is not None:
            tasks.start_soon(drain_siblings, drainer.peers)
        outcome = await drainer.notifier.wait_for(begun.outcome, begun.changes_in)
        if outcome != "clean":
            faults.append(outcome)
        # A stop ends the siblings by itself, and must not wait for this request.
        await drainer.notifier.wait_for(lambda: over or drainer.state.stopping)
        tasks.cancel_scope.cancel()
    return faults


_EXTRA: Final = {401: [(b"www-authenticate", b"Bearer")], 405: [(b"allow", b"GET, POST")]}


async def _answer(drainer: DrainRunner, scope: Scope, send: Send, status: int, text: str) -> None:
    body = text.encode()
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"cache-control", b"no-store"),
            *_EXTRA.get(status, ()),
        ],
    }
    if drainer.phase is not Phase.SERVING and connection_header.closes(scope, start):
        await send(connection_header.with_close(start))
    else:
        await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
