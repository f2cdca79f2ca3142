"""WebSockets: sessions that are open when the signal comes; quiet, in conversation, and pushing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..client.websocket import CUT, WebSocketSession
from ..errors import PathError
from ..result.counts import Answered, Complete, Lost, Unsent, Wrong
from ..result.finding import Exit, Finding
from .base import Scenario, since_signal

if TYPE_CHECKING:
    from ..client.plan import LoadPlan
    from ..client.run import Run

_RIGHT: Final = frozenset({1000, 1001, 1012, 1013})
"""Normal; going away; service restart; try again later (RFC 6455, 7.4; IANA's registry)."""
_HANDSHAKE_PERIOD: Final = 5.0
_FIRST_MESSAGE_PERIOD: Final = 5.0
_CLOSE_PERIOD: Final = 1.0
_REPLY_PERIOD: Final = 2.0
_QUIET_PERIOD: Final = 0.25
"""Seconds without a message after which a reply counts as whole."""
_OWED_PERIOD: Final = 0.25
"""A message that was sent so shortly before the server's close frame may have crossed it: whether
the server had read it, a client cannot know."""


class WebSocket(Scenario):
    """Right: a close frame whose code says that the session was ended on purpose.

    A session that is cut is one request lost: its opening handshake was its only one. One that is
    closed in the middle of a message is a wrong answer.
    """

    name = "WebSocket"
    option = "--ws-path"
    learns = False  # the handshake has no answer to learn

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self._code = 0
        self._seconds = 0.0
        self._outcome: Complete | Lost | None = None

    async def prepare(self, run: Run) -> None:
        path = self.endpoint.path
        named = f"{self.option} {path}"
        with closing(await run.connect_before_load(named, within=_HANDSHAKE_PERIOD)) as connection:
            session = WebSocketSession(run, connection, path)
            if not await session.open(within=_HANDSHAKE_PERIOD):
                status = session.refused_with
                what = f"was answered {status}" if status else "got no proper answer"
                raise PathError(f"{named}: the WebSocket handshake {what}")
            await self._look(session, named)
            await session.close(within=_CLOSE_PERIOD)

    async def _look(self, session: WebSocketSession, named: str) -> None:
        """Find out, on an open session, what else the scenario has to know."""

    async def carry_out(self, run: Run) -> None:
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        with closing(connection):
            session = WebSocketSession(run, connection, self.endpoint.path)
            written = run.send(self.load, connection, session.handshake)
            if isinstance(written, Unsent):
                return self.not_run(f"no handshake: {written.reason}")
            # A timeout: it is still open at the end of the run.
            with run.waiting(connection), contextlib.suppress(TimeoutError):
                await self._use(session)
            self._seconds = since_signal(run)
            self._outcome = self._conclude(run, session)
            run.record(self.load, self._outcome, written)

    async def _use(self, session: WebSocketSession) -> None:
        """Read what comes, until the session is over."""
        while not session.is_over:
            await session.read()
            if session.is_open:
                self.in_position.set()

    def _conclude(self, run: Run, session: WebSocketSession) -> Complete | Lost:
        if (status := session.refused_with) is not None:
            self.not_run(f"the handshake was answered {status}")
            return Answered(status, reusable=False)
        self._code = session.code
        if self._code == CUT:
            return Lost("cut body", reused=False)
        if not run.signalled.is_set():
            self.not_run(f"closed with {self._code} before the signal")
            return Answered(101, reusable=False)
        if self._code not in _RIGHT:
            return Wrong(101, False, f"closed with {self._code}")
        if (missing := self._missing(session)) is not None:
            return Wrong(101, False, "reply cut", f"closed with {self._code} {missing}")
        return Answered(101, reusable=False)

    def _missing(self, session: WebSocketSession) -> str | None:
        """Return what the session was closed in the middle of."""
        return "in the middle of a message" if session.in_message else None

    def judge(self, end: Exit) -> Finding:
        if self._code == CUT:
            return Finding(self.name, "failed", "cut without a close frame (1006)", self.load)
        if isinstance(self._outcome, Wrong):
            text = self._outcome.seen or self._outcome.kind
            return Finding(self.name, "failed", text, self.load, self._seconds)
        return Finding(self.name, "passed", f"closed with {self._code}", self.load, self._seconds)


class WebSocketReplies(WebSocket):
    """Right: besides, no reply that the server owes is missing or cut.

    The client sends a message, waits for the reply, and so on. How many messages a reply has is
    learned before the load.
    """

    name = "WebSocket replies"

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self._in_a_reply = 0
        self._replied = 0
        self._sent_at: float | None = None
        self._closed_at = 0.0

    async def _look(self, session: WebSocketSession, named: str) -> None:
        text = self.plan.websocket_message
        counts = []
        for _ in range(2):
            before = session.messages
            await session.send(text)
            await _gather(session, before)
            counts.append(session.messages - before)
            if not counts[-1]:
                break
        if not session.is_open:
            return self.leave_out(f"closed at the message {text!r}: give --ws-message")
        if not counts[-1] or counts[0] != counts[-1]:
            return self.leave_out(f"no regular reply to the message {text!r}: give --ws-message")
        self._in_a_reply = counts[0]

    async def _use(self, session: WebSocketSession) -> None:
        await session.answered()
        while not session.is_over:
            if session.connection.is_stale():
                # Something has come unasked: the close frame, perhaps.
                await session.read()
                continue
            self._replied = session.messages
            self._sent_at = time.monotonic()
            await session.send(self.plan.websocket_message)
            self.in_position.set()
            await self._read_reply(session)
            await asyncio.sleep(self.plan.think_period)
        self._closed_at = self._closed_at or time.monotonic()

    async def _read_reply(self, session: WebSocketSession) -> None:
        wanted = self._replied + self._in_a_reply
        while not session.is_over and session.messages < wanted:
            await session.read()
        if session.messages >= wanted:
            self._sent_at = None
        if session.is_over:
            self._closed_at = time.monotonic()

    def _missing(self, session: WebSocketSession) -> str | None:
        if session.in_message:
            return "in the middle of a reply"
        if self._sent_at is None:
            return None
        came = session.messages - self._replied
        if came:
            return f"in the middle of a reply ({came} of {self._in_a_reply} messages)"
        owed = self._closed_at - self._sent_at
        may_have_crossed = owed <= _OWED_PERIOD + self.plan.latency
        return None if may_have_crossed else f"with a reply owed for {owed:.1f} s"


class WebSocketPush(WebSocket):
    """Right: the same, for a session in which only the server sends."""

    name = "WebSocket push"
    option = "--ws-push-path"

    async def _look(self, session: WebSocketSession, named: str) -> None:
        patient = session.connection.give_up_after(_FIRST_MESSAGE_PERIOD)
        with patient, contextlib.suppress(TimeoutError):
            while not (session.messages or session.is_over):
                await session.read()
        if not session.messages:
            raise PathError(f"{named}: the server sent no message in {_FIRST_MESSAGE_PERIOD:g} s")


async def _gather(session: WebSocketSession, before: int) -> None:
    """Read until a reply has come and nothing follows it, or none comes."""
    deadline = time.monotonic() + _REPLY_PERIOD
    while not session.is_over:
        period = _QUIET_PERIOD if session.messages > before else deadline - time.monotonic()
        try:
            await asyncio.wait_for(session.read(), period)
        except (TimeoutError, asyncio.TimeoutError):
            return
