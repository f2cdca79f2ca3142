"""Notices of the drain: posted from anywhere, published on the loop, each once and in order."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from support.polling import PATIENCE, eventually
from support.records import event

from graceful_asgi._core.notifier import Notifier
from graceful_asgi.phase import Phase, PhaseChange

CHANGE = PhaseChange(previous=Phase.SERVING, phase=Phase.LAME_DUCK, reason="SIGTERM", in_flight=3)


@pytest.mark.anyio
async def test_news_from_another_thread_is_told_on_the_loop_in_order() -> None:
    notifier = Notifier()
    notifier.bind()
    told: list[tuple[int, int]] = []

    def tell(number: int) -> None:
        told.append((number, threading.get_ident()))

    def post_all() -> None:
        for number in range(100):
            notifier.post(partial(tell, number))

    await anyio.to_thread.run_sync(post_all)
    await eventually(lambda: len(told) == 100)
    assert told == [(number, threading.get_ident()) for number in range(100)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_news_from_before_the_loop_is_told_as_it_binds(backend: str) -> None:
    notifier = Notifier()
    told: list[str] = []

    async def bind() -> None:
        notifier.bind()
        assert notifier.bound
        assert told == ["early"]

    notifier.post(lambda: told.append("early"))
    assert not told
    assert not notifier.bound
    anyio.run(bind, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_news_from_a_loop_that_nobody_bound_is_told_there(backend: str) -> None:
    """A program or a test may use a drainer by itself, in one loop after the other."""
    notifier = Notifier()
    told: list[str] = []

    async def post(name: str) -> None:
        notifier.post(lambda: told.append(name))
        with anyio.fail_after(PATIENCE):
            await eventually(lambda: name in told)

    anyio.run(post, "first", backend=backend)
    anyio.run(post, "second", backend=backend)
    assert told == ["first", "second"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_news_from_after_the_loop_is_kept_for_who_publishes_next(backend: str) -> None:
    """The watchdog does, when the loop cannot any more."""
    notifier = Notifier()

    async def bind() -> None:
        notifier.bind()

    anyio.run(bind, backend=backend)
    told: list[str] = []
    notifier.post(lambda: told.append("late"))
    assert not told
    notifier.publish()
    assert told == ["late"]


@pytest.mark.anyio
async def test_each_piece_is_told_once_however_many_publish() -> None:
    notifier = Notifier()
    told: list[int] = []
    for number in range(2000):
        notifier.post(partial(told.append, number))
    threads = [threading.Thread(target=notifier.publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == list(range(2000))


@pytest.mark.anyio
async def test_news_wakes_everybody_who_listens() -> None:
    notifier = Notifier()
    woken: list[int] = []
    listening = 0

    async def listen(number: int) -> None:
        nonlocal listening
        with notifier.listening() as listener:
            listening += 1
            await listener.wait(float("inf"))
            woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(listen, number)
        await eventually(lambda: listening == 3)
        notifier.post(lambda: None)
        with anyio.fail_after(PATIENCE):
            await eventually(lambda: sorted(woken) == [0, 1, 2])


@pytest.mark.anyio
async def test_a_change_of_phase_goes_to_the_log_and_to_every_hook(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="graceful_asgi")
    notifier = Notifier()
    told: list[PhaseChange] = []
    notifier.hooks += [told.append, told.append]
    notifier.tell(CHANGE)
    assert told == [CHANGE, CHANGE]
    (record,) = caplog.records
    assert event(record) == "drain.phase"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("broken"),
        IndexError("broken"),
        asyncio.CancelledError("broken"),
        SystemExit("broken"),
        KeyboardInterrupt("broken"),
        GeneratorExit("broken"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_hook_that_fails_is_logged_with_its_traceback_and_the_next_is_told(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(change: PhaseChange) -> Any:
        raise error

    notifier = Notifier()
    told: list[PhaseChange] = []
    notifier.hooks += [broken, told.append]
    notifier.tell(CHANGE)
    assert told == [CHANGE]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert event(record) == "drain.failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "broken" in record.getMessage(), "the hook is named"
