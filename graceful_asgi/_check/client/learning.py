"""Learns what right answers are, before there is any load: each path is asked a few times.

An answer that cannot be right (404, 401, a redirect, none at all) is an error that names it: a
check that went on would prove nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..errors import PathError
from ..result.counts import Lost, Unsent
from .expectation import Expectation, as_text, decoded, expect, shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .answer import HttpAnswer
    from .plan import Endpoint
    from .run import Run

# The last is more than a second after the first: a clock in the answer has gone on by then.
_ASKED_AT: Final = (0.0, 0.5, 1.1)
_ASKED_AT_ONCE: Final = 17
"""Requests for the path of the load in the first half second: workers that take turns, or a cache
that the first request fills, need not answer alike."""
_WARM_UP_INTERVAL: Final = 0.1
_WARM_UP_PERIOD: Final = 10.0
"""Seconds in which a 503 counts as that of a server which is not ready yet."""
_SLOW: Final = 0.2
"""Seconds. An answer that comes sooner is hardly in flight when the signal comes."""
_STREAM_PERIOD: Final = 15.0
"""An event stream that goes on for longer is taken for one without an end."""


async def learn_all(
    run: Run,
    endpoints: Iterable[Endpoint],
    others: Iterable[Callable[[Run], Awaitable[None]]] = (),
    *,
    within: float,
) -> None:
    """Learn the right answers of all endpoints into `run.expectations`, and call all `others`.

    An endpoint whose answers are known from another run of the same server is asked once: the
    answer may differ from the known ones in its numbers, a process id for instance. `within` is how
    many seconds a whole answer may take. Raises `PathError` with a line for each path that does not
    answer as it should.
    """
    asked = dict.fromkeys(endpoints)
    found = await asyncio.gather(
        *(_Learner(run, endpoint, within).learn() for endpoint in asked),
        *(other(run) for other in others),
        return_exceptions=True,
    )
    errors = [error for error in found if isinstance(error, BaseException)]
    for error in errors:
        if not isinstance(error, PathError):
            raise error
    if errors:
        raise PathError("\n".join(map(str, errors)))


class _Learner:
    """Asks for one endpoint."""

    def __init__(self, run: Run, endpoint: Endpoint, within: float) -> None:
        self._run = run
        self._endpoint = endpoint
        self._within = min(within, _STREAM_PERIOD) if endpoint.is_stream else within
        self._seconds = 0.0
        self._named = endpoint.named

    async def learn(self) -> None:
        known = self._run.expectations.get(self._endpoint)
        if known is not None:
            if not known.has_end:
                return
            first = await self._first()
            right = known if known.fault(first) is None else known.widened(first)
            if right is not None:
                self._run.expectations[self._endpoint] = right
                return
        self._run.expectations[self._endpoint] = await self._learn_anew()

    async def _learn_anew(self) -> Expectation:
        later = [asyncio.ensure_future(self._ask(after=after)) for after in _ASKED_AT[1:]]
        try:
            answers = [await self._first()]
            if self._endpoint == self._run.plan.load:
                answers += await self._ask_at_once()
            answers += await asyncio.gather(*later)
        except _Endless as endless:
            return endless.expectation
        finally:
            for task in later:
                task.cancel()
            await asyncio.gather(*later, return_exceptions=True)
        right = [answer for answer in answers if self._why_not(answer) is None]
        expectation = expect(right, any_body=self._run.plan.any_body)
        self._note(expectation)
        return expectation

    def _note(self, expectation: Expectation) -> None:
        endpoint = self._endpoint
        if expectation.can_be_cut_unseen:
            self._run.notes.append(
                f"{endpoint.text}: its body ends with the connection and varies in length, so a "
                "body that was cut cannot be told from a whole one"
            )
        if endpoint.is_slow and self._seconds < _SLOW:
            self._run.notes.append(
                f"{endpoint.option} {endpoint.path} answers in {self._seconds * 1000:.0f} ms; one "
                "that takes a second shows more"
            )

    async def _first(self) -> HttpAnswer:
        """Return the first right answer. A server that says 503 may not be ready yet."""
        deadline = time.monotonic() + _WARM_UP_PERIOD
        while True:
            answer = await self._ask()
            why_not = self._why_not(answer)
            if why_not is None:
                return answer
            if answer.status != 503 or time.monotonic() > deadline:
                raise PathError(why_not)
            await asyncio.sleep(_WARM_UP_INTERVAL)

    async def _ask_at_once(self) -> list[HttpAnswer]:
        deadline = time.monotonic() + _ASKED_AT[1]
        answers: list[HttpAnswer] = []
        while len(answers) < _ASKED_AT_ONCE and time.monotonic() < deadline:
            answers.append(await self._ask())
        return answers

    async def _ask(self, *, after: float = 0.0) -> HttpAnswer:
        await asyncio.sleep(after)
        run, within = self._run, self._within
        connection = await run.connect_before_load(self._named, within=within)
        began = time.monotonic()
        with closing(connection), connection.give_up_after(within):
            unsent = connection.send(run.request(self._endpoint))
            answer = unsent or await connection.receive()
        self._seconds = time.monotonic() - began
        if isinstance(answer, Unsent):
            raise PathError(f"{self._named} could not be sent: {answer.reason}")
        if not isinstance(answer, Lost):
            return answer
        head = connection.head
        if answer.kind == "timeout" and head is not None and self._endpoint.is_stream:
            if (why_not := self._why_not(head)) is not None:
                raise PathError(why_not)
            raise _Endless(head)
        what = f"in {within:g} s" if answer.kind == "timeout" else f"({answer.kind})"
        raise PathError(
            f"{self._named} got no complete answer {what}, and nobody had stopped the server"
        )

    def _why_not(self, answer: HttpAnswer) -> str | None:
        """Return why an answer cannot be a right one, with what to do; None: it may be right."""
        endpoint, status = self._endpoint, answer.status
        named = f"{self._named} answered {shown(answer)}"
        if 200 <= status < 300 or status in self._run.plan.right_statuses:
            if endpoint.is_stream and not answer.is_event_stream:
                return f"{named}, which is no text/event-stream"
            return f"{named}, cut or damaged" if decoded(answer) is None else None
        otherwise = f"--expect-status {status} if that is right"
        if status in (401, 403):
            return f"{named}; give --header 'Authorization: ...', or {otherwise}"
        if status == 405:
            other = "GET" if endpoint.method != "GET" else "POST"
            path = f"{endpoint.option} '{other} {endpoint.path}'"
            return f"{named}; give another method ({path}), or {otherwise}"
        if status in (400, 415, 422):
            return f"{named}; give --body and --header as the app wants them, or {otherwise}"
        if 300 <= status < 400 and answer.location:
            to = as_text(answer.location)
            return f"{named}; give the path it leads to ({endpoint.option} {to}), or {otherwise}"
        return f"{named}; give a path that the app has, or {otherwise}"


class _Endless(Exception):  # an outcome, caught above
    """An event stream has not ended in time."""

    def __init__(self, head: HttpAnswer) -> None:
        self.expectation = Expectation(
            statuses=frozenset({head.status}), type=head.type, has_end=False
        )
