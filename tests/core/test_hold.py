"""A drain that was begun and that no stop follows: who may undo it, and when."""

from __future__ import annotations

import pytest
from support.polling import eventually

from graceful_asgi import Drainer, DrainPolicy, Phase
from graceful_asgi._core.watch import DrainWatch

pytestmark = pytest.mark.anyio

SOON = 0.1
LATER = 600.0


def held(drainer: Drainer) -> float:
    """Return the seconds until the drain is undone; it has to be going to be."""
    left = drainer.hold.time_left()
    assert left is not None
    return left


@pytest.fixture
def drainer() -> Drainer:
    return Drainer(DrainPolicy(lame_duck_period=60))


async def test_a_drain_that_no_stop_follows_is_called_off(
    drainer: Drainer, caplog: pytest.LogCaptureFixture
) -> None:
    drainer.bind()
    assert drainer.hold.begin("endpoint", resume_after=SOON)
    assert 0 < held(drainer) <= SOON
    await eventually(lambda: drainer.phase is Phase.SERVING)
    await eventually(lambda: "no stop has followed the drain begun by endpoint" in caplog.text)
    assert drainer.hold.time_left() is None


async def test_a_stop_keeps_it(drainer: Drainer) -> None:
    drainer.hold.begin("endpoint", resume_after=SOON)
    timer = drainer.hold._timer
    drainer.stop("SIGTERM")
    assert drainer.hold.time_left() is None
    await eventually(lambda: timer is not None and not timer.is_alive())
    assert drainer.phase is Phase.LAME_DUCK


async def test_the_latest_time_counts(drainer: Drainer) -> None:
    assert drainer.hold.begin("first", resume_after=LATER)
    assert not drainer.hold.begin("second", resume_after=SOON)
    assert held(drainer) > SOON
    drainer.hold.begin("third", resume_after=2 * LATER)
    assert held(drainer) > LATER
    drainer.hold.close()


async def test_a_time_longer_than_any_timer_is_no_error(drainer: Drainer) -> None:
    drainer.hold.begin("endpoint", resume_after=1e12)
    assert held(drainer) > 1e11
    drainer.hold.close()


async def test_who_asks_for_good_keeps_it_for_good(drainer: Drainer) -> None:
    drainer.hold.begin("endpoint", resume_after=SOON)
    drainer.hold.begin("operator")
    assert drainer.hold.time_left() is None
    drainer.hold.begin("endpoint", resume_after=SOON)
    assert drainer.hold.time_left() is None


async def test_a_drain_of_the_apps_own_is_not_undone(drainer: Drainer) -> None:
    drainer.begin("the app")
    drainer.hold.begin("endpoint", resume_after=SOON)
    assert drainer.hold.time_left() is None


async def test_the_timer_of_a_drain_that_was_called_off_undoes_no_other(drainer: Drainer) -> None:
    drainer.hold.begin("endpoint", resume_after=SOON)
    timer = drainer.hold._timer
    drainer.resume()
    drainer.begin("the app")
    assert drainer.hold.time_left() is None
    await eventually(lambda: timer is not None and not timer.is_alive())
    assert drainer.phase is Phase.LAME_DUCK


async def test_the_timer_goes_with_the_drain(drainer: Drainer) -> None:
    """No thread lingers for half a minute in a process that has resumed by hand."""
    drainer.bind()
    drainer.add_hook(drainer.hold.phase_changed)
    drainer.hold.begin("endpoint", resume_after=LATER)
    timer = drainer.hold._timer
    assert timer is not None
    drainer.resume()
    await eventually(lambda: not timer.is_alive())


async def test_late_news_of_one_drain_costs_the_next_one_nothing(drainer: Drainer) -> None:
    drainer.bind()
    drainer.add_hook(drainer.hold.phase_changed)
    drainer.hold.begin("first", resume_after=LATER)
    drainer.resume()
    drainer.hold.begin("second", resume_after=LATER)
    drainer.notifier.publish()  # the news of the first comes only now
    assert held(drainer) > SOON
    drainer.hold.close()


# How a drain comes out


async def test_a_watch_is_for_the_drain_that_was_under_way(drainer: Drainer) -> None:
    drainer.begin("first")
    watch = DrainWatch(drainer)
    assert watch.outcome() is None
    drainer.resume()
    assert watch.outcome() == "resumed"
    drainer.begin("second")
    assert watch.outcome() == "resumed"
    assert DrainWatch(drainer).outcome() is None


async def test_a_watch_gives_up_after_lame_duck_and_grace_unless_a_stop_has_come() -> None:
    drainer = Drainer(DrainPolicy(lame_duck_period=0, grace_period=0))
    with drainer.track("export"):
        drainer.begin("test")
        watch = DrainWatch(drainer)
        assert watch.outcome() == "forced"
        drainer.stop("SIGTERM")
        assert watch.outcome() is None
    assert watch.outcome() == "clean"
