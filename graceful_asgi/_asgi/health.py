"""`Probes`: the paths that the middleware answers itself. They are never in flight."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio

from .._core.begun_drain import BegunDrain
from ..errors import PolicyError
from ..phase import Phase
from . import connection_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.runner import DrainRunner
    from .._core.server_context import Peers
    from ..types import Scope, Send

MIN_TOKEN_LENGTH: Final = 16

REASON: Final = "drain endpoint"

PLATFORM_PERIOD: Final = 30.0
"""Seconds that Kubernetes gives by default between the beginning of preStop and SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Paths answered by the middleware, for the platform. Immutable.

    They are those of the app's own, without the root path (uvicorn's `--root-path`, a mount).

    Raises:
        PolicyError: (a `ValueError`) a path does not begin with `/` or is given twice, or `drain`
            comes without a token of 16 characters or more.
    """

    readiness: str | None = None
    """200 while serving, 503 from the drain's beginning on."""
    liveness: str | None = None
    """200 from the first to the last: a draining server is not a dead one."""
    drain: str | None = None
    """Begins a drain in every process of the server, and answers once they are drained; for a
    preStop hook (GET or POST). 200 when that was clean; 503 otherwise, with the reason. It undoes
    itself when no stop has come within `DrainPolicy.termination_grace_period` (30 s where that is
    None): a liveness restart runs the hook, too."""
    drain_token: str | None = field(default=None, repr=False)
    """What `drain` wants to see in `Authorization: Bearer`."""

    def __post_init__(self) -> None:
        given = [path for path in (self.readiness, self.liveness, self.drain) if path is not None]
        for name in ("readiness", "liveness", "drain"):
            path = getattr(self, name)
            if path is None:
                continue
            if not isinstance(path, str) or not path.startswith("/"):
                raise PolicyError(f"{name}={path!r} is not allowed; allowed: a path from '/' on")
            if given.count(path) > 1:
                raise PolicyError(f"{name}={path!r} is not allowed; allowed: a path of its own")
        token = self.drain_token if isinstance(self.drain_token, str) else ""
        if self.drain is not None and len(token) < MIN_TOKEN_LENGTH:
            raise PolicyError(
                f"drain={self.drain!r} is not allowed without drain_token; "
                f"allowed: a token of {MIN_TOKEN_LENGTH} characters or more"
            )

    async def answers(self, drainer: DrainRunner, scope: Scope, send: Send) -> bool:
        """Answer the request if its path is one of these; say whether it was."""
        # The path includes the root path: what a proxy takes off it, and the platform's probes,
        # which go past the proxy, never had. Or what the app is mounted at.
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        if path == self.readiness:
            serving = drainer.phase is Phase.SERVING
            await _answer(drainer, scope, send, 200 if serving else 503, drainer.phase.value)
        elif path == self.liveness:
            await _answer(drainer, scope, send, 200, "alive")
        elif path == self.drain:
            await self._drain(drainer, scope, send)
        else:
            return False
        return True

    async def _drain(self, drainer: DrainRunner, scope: Scope, send: Send) -> None:
        if not self._knows(scope):
            await _answer(drainer, scope, send, 401, "wrong or missing token")
        elif scope["method"] not in ("GET", "POST"):
            await _answer(drainer, scope, send, 405, "GET or POST")
        else:
            faults = await _drain_all(drainer)
            text = "; ".join(faults) or "clean"
            await _answer(drainer, scope, send, 503 if faults else 200, text)

    def _knows(self, scope: Scope) -> bool:
        expected = f"Bearer {self.drain_token}".encode()
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, expected)


async def _drain_all(drainer: DrainRunner) -> Sequence[str]:
    """Drain every process of the server; return what was not clean about it."""
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
        outcome = await begun.wait()
        if outcome != "clean":
            faults.append(outcome)
        # A stop ends the siblings by itself, and this request must not be what it waits for.
        await drainer.wait_for(lambda: over or drainer.stopping)
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
