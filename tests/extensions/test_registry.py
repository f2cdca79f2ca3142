"""Extensions are told what happens to a server, and closed at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio.lowlevel
import pytest
from support.asgi import FakeAdapter

from graceful_asgi import DrainPolicy
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._core.server_adapter import ServerEvents

if TYPE_CHECKING:
    from graceful_asgi.phase import PhaseChange

QUICK = DrainPolicy(lame_duck_period=0, grace_period=0, cancel_period=0, cleanup_period=0)


class Noting(ServerEvents):
    """Notes what it is called with; raises after that if it is to."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.told: list[str] = []
        self._failure = failure

    def opened(self) -> None:
        self._note("opened")

    def phase_changed(self, change: PhaseChange) -> None:
        self._note(change.phase.value)

    def closed(self) -> None:
        self._note("closed")

    def _note(self, what: str) -> None:
        self.told.append(what)
        if self._failure is not None:
            raise self._failure


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [ValueError("x"), SystemExit(5), asyncio.CancelledError()])
async def test_one_that_raises_keeps_no_other_from_its_phases_or_its_end(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Noting(failure), Noting()
    drainer = DrainRunner(QUICK)
    drainer.notifier.server_events += [broken, sound]
    drainer.bind(anew=True)
    drainer.notifier.server_opened()
    drainer.stop("test")
    await drainer.drain(FakeAdapter(drainer))
    drainer.finish()
    await anyio.lowlevel.checkpoint()
    assert broken.told == sound.told
    assert sound.told == ["opened", "lame duck", "draining", "cleanup", "stopped", "closed"]
    assert caplog.text.count("failed; the server goes on") == 6
    assert drainer.notifier.server_events == []


@pytest.mark.anyio
async def test_one_that_outlives_its_server_is_called_for_the_next_as_well() -> None:
    class Lasting(Noting):
        outlives_server = True

    lasting, drainer = Lasting(), DrainRunner(QUICK)
    drainer.notifier.server_events.append(lasting)
    for _ in range(2):
        drainer.bind(anew=True)
        drainer.notifier.server_opened()
        drainer.stop("test")
        await drainer.drain(FakeAdapter(drainer))
        drainer.finish()
    assert (lasting.told.count("opened"), lasting.told.count("closed")) == (2, 2)
