"""A drain that was begun and waits for a stop: how it comes out, and who undoes it when."""

from __future__ import annotations

import logging
import re
from typing import Any

import anyio
import pytest
from support.virtual_time import virtual_clock, virtual_time

from graceful_asgi import DrainPolicy, Phase
from graceful_asgi._core.begun_drain import BegunDrain
from graceful_asgi._core.runner import DrainRunner

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_time(request.param)


@pytest.fixture
async def runner(caplog: pytest.LogCaptureFixture) -> DrainRunner:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    return DrainRunner(DrainPolicy(lame_duck_period=60, grace_period=15), clock=virtual_clock())


async def test_a_drain_that_no_stop_follows_is_undone(
    runner: DrainRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.bind()
    assert runner.begin("endpoint", resume_after=30)
    await anyio.sleep(29)
    assert runner.undo_in() == pytest.approx(1, abs=0.2)
    await anyio.sleep(2)
    assert runner.phase is Phase.SERVING
    assert runner.undo_in() is None
    assert "no stop has followed the drain begun by endpoint" in caplog.text


async def test_the_app_that_begins_for_good_keeps_a_drain_that_may_be_undone(
    runner: DrainRunner,
) -> None:
    runner.bind()
    runner.begin("endpoint", resume_after=1)
    assert not runner.begin("the app")
    await anyio.sleep(100)
    assert runner.phase is Phase.LAME_DUCK


async def test_a_stop_keeps_it(runner: DrainRunner) -> None:
    runner.bind()
    runner.begin("endpoint", resume_after=1)
    runner.stop("SIGTERM")
    await anyio.sleep(50)
    assert runner.undo_in() is None


async def test_a_later_time_puts_the_undoing_off_while_it_is_waited_for(
    runner: DrainRunner,
) -> None:
    runner.bind()
    runner.begin("first", resume_after=10)
    await anyio.sleep(5)
    runner.begin("second", resume_after=30)
    await anyio.sleep(20)
    assert runner.state.waiting
    await anyio.sleep(15)
    assert runner.phase is Phase.SERVING


async def test_the_time_of_a_drain_that_was_called_off_undoes_no_other(
    runner: DrainRunner,
) -> None:
    runner.bind()
    runner.begin("endpoint", resume_after=5)
    runner.resume()
    runner.begin("the app")
    await anyio.sleep(50)
    assert runner.phase is Phase.LAME_DUCK


async def test_a_time_longer_than_any_timer_is_no_error(runner: DrainRunner) -> None:
    runner.bind()
    runner.begin("endpoint", resume_after=1e12)
    await anyio.sleep(1)
    assert runner.phase is Phase.LAME_DUCK
    assert (runner.undo_in() or 0) > 1e11


# What the log says of it: nobody else may look at a preStop hook


async def test_the_log_shows_how_a_held_drain_goes_on_and_comes_out(
    runner: DrainRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.bind()
    with runner.track("export"):
        runner.begin("drain endpoint")
        await anyio.sleep(70)
        assert "lame duck: 1 in flight" in caplog.text
        assert "drained" not in caplog.text
    await anyio.sleep(1)
    assert re.search(r": drained after [\d.]+ s \(drain endpoint\): waiting", caplog.text)


async def test_the_log_shows_a_held_drain_that_is_forced(
    runner: DrainRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.bind()
    with runner.track("export"):
        runner.begin("drain endpoint")
        await anyio.sleep(80)
        assert ": not drained, 1 still in flight after 75.0 s" in caplog.text


async def test_the_log_says_drained_as_soon_as_the_lame_duck_is_over(
    runner: DrainRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.bind()
    await anyio.sleep(3)  # so that it is not a progress line's time
    runner.begin("drain endpoint")
    await anyio.sleep(59)
    assert "drained" not in caplog.text
    await anyio.sleep(1.5)
    assert re.search(r": drained after [\d.]+ s \(drain endpoint\): waiting", caplog.text)


async def test_a_drain_after_one_that_was_called_off_in_the_same_turn_is_said_once_to_be_drained(
    runner: DrainRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.bind()
    runner.begin("first")
    runner.resume()
    runner.begin("second")
    await anyio.sleep(61)
    lines = [text for text in caplog.messages if "drained after" in text]
    assert len(lines) == 1
    assert "(second)" in lines[0]


# How it comes out


async def test_it_is_the_drain_that_was_under_way(runner: DrainRunner) -> None:
    runner.begin("first")
    begun = BegunDrain(runner)
    assert begun.outcome() is None
    runner.resume()
    assert begun.outcome() == "resumed"
    runner.begin("second")
    assert begun.outcome() == "resumed"
    assert BegunDrain(runner).outcome() is None


async def test_a_stray_that_comes_before_anybody_looks_makes_no_clean_drain_a_forced_one(
    runner: DrainRunner,
) -> None:
    runner.bind()
    with runner.track("first"):
        runner.begin("test")
        await anyio.sleep(61)
    begun = BegunDrain(runner)
    with runner.track("stray"):
        assert not runner.drained
        assert begun.outcome() == "clean"


async def test_it_gives_up_after_lame_duck_and_grace_unless_a_stop_has_come() -> None:
    runner = DrainRunner(DrainPolicy(lame_duck_period=0, grace_period=0))
    with runner.track("export"):
        runner.begin("test")
        begun = BegunDrain(runner)
        assert begun.outcome() == "forced"
        runner.stop("SIGTERM")
        assert begun.outcome() is None
    assert begun.outcome() == "clean"


async def test_waiting_ends_with_the_lame_duck_or_with_the_last_work(runner: DrainRunner) -> None:
    runner.bind()
    runner.begin("test")
    with anyio.fail_after(61):
        begun = BegunDrain(runner)
        assert await runner.notifier.wait_for(begun.outcome, begun.changes_in) == "clean"
    assert runner.statistics().elapsed == pytest.approx(60, abs=0.5)
