"""What stands beside a drain: it is told of each phase, and closed at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.lowlevel
import pytest
from support.asgi import FakeAdapter

from graceful_asgi import DrainPolicy
from graceful_asgi._core.runner import DrainRunner
from graceful_asgi._extensions.registry import attend

if TYPE_CHECKING:
    from graceful_asgi.phase import PhaseChange

QUICK = DrainPolicy(lame_duck_period=0, grace_period=0, cancel_period=0, cleanup_period=0)


class Noting:
    """Notes what it is told; fails after that if it is to."""

    def __init__(self, *, fails: bool) -> None:
        self.told: list[str] = []
        self._fails = fails

    def phase_changed(self, change: PhaseChange) -> None:
        self._note(change.phase.value)

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        self.told.append(what)
        if self._fails:
            raise ValueError(what)


@pytest.mark.anyio
async def test_one_that_raises_keeps_no_other_from_its_news_or_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, sound = Noting(fails=True), Noting(fails=False)
    drainer = DrainRunner(QUICK)
    drainer.makers += [lambda drainer: broken, lambda drainer: sound]
    drainer.bind(anew=True)
    await attend(drainer)
    drainer.stop("test")
    await drainer.drain(FakeAdapter(drainer))
    drainer.finish()
    await anyio.lowlevel.checkpoint()
    assert broken.told == sound.told
    assert sound.told == ["lame duck", "draining", "cleanup", "stopped", "close"]
    assert caplog.text.count("failed; the drain goes on") == 5
    assert drainer.notifier.hooks == []
