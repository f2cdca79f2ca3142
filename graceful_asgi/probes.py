"""`Probes`: the paths that the middleware answers itself. They are never in flight."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from . import header
from .errors import PolicyError
from .phase import Phase

if TYPE_CHECKING:
    from .asgi import Scope, Send
    from .drainer import Drainer

MIN_TOKEN_LENGTH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Paths answered by the middleware, for the platform. Immutable.

    Raises:
        PolicyError: (a `ValueError`) a path does not begin with `/` or is given twice, or `drain`
            comes without a token of 16 characters or more.
    """

    readiness: str | None = None
    """200 while serving, 503 from the drain's beginning on."""
    liveness: str | None = None
    """200 from the first to the last: a draining server is not a dead one."""
    drain: str | None = None
    """Begins a drain and answers once it is drained; for a preStop hook (GET or POST)."""
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

    async def answers(self, drainer: Drainer, scope: Scope, send: Send) -> bool:
        """Answer the request if its path is one of these; say whether it was."""
        path = scope["path"]
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

    async def _drain(self, drainer: Drainer, scope: Scope, send: Send) -> None:
        if not self._knows(scope):
            await _answer(drainer, scope, send, 401, "wrong or missing token")
        elif scope["method"] not in ("GET", "POST"):
            await _answer(drainer, scope, send, 405, "GET or POST")
        else:
            drainer.begin("drain endpoint")
            report = await drainer.wait_drained()
            await _answer(drainer, scope, send, 200, "clean" if report.clean else "forced")

    def _knows(self, scope: Scope) -> bool:
        expected = f"Bearer {self.drain_token}".encode()
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, expected)


_EXTRA: Final = {401: [(b"www-authenticate", b"Bearer")], 405: [(b"allow", b"GET, POST")]}


async def _answer(drainer: Drainer, scope: Scope, send: Send, status: int, text: str) -> None:
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
    if drainer.phase is not Phase.SERVING and header.closes(scope, start):
        await send(header.with_close(start))
    else:
        await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
