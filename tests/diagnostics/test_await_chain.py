"""The chain of awaits: from a coroutine to the innermost thing it waits for."""

from __future__ import annotations

import asyncio
import re
import types
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from graceful_asgi._diagnostics.await_chain import await_chain
from graceful_asgi._diagnostics.trail import where

from .waiting import line_of, step, waits_here, waits_in_a_library

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator


async def calls_on() -> None:
    await waits_here()


@types.coroutine
def old_style() -> Generator[Any, Any, None]:
    yield from waits_here()


async def through_a_generator() -> None:
    await old_style()


async def numbers() -> AsyncIterator[int]:
    await asyncio.sleep(0)  # here
    yield 1


async def through_an_async_generator() -> None:
    async for _ in numbers():
        pass


async def through_anext() -> None:
    await anext(numbers(), 0)


async def through_asend() -> None:
    generator: Any = numbers()
    await generator.asend(None)


class Wrapper:
    """An awaitable that lends itself the coroutine of another."""

    def __await__(self) -> Generator[Any, Any, None]:
        return waits_here().__await__()


async def through_a_wrapper() -> None:
    await Wrapper()


def where_it_waits(coroutine: Any) -> str:
    """Run *coroutine* up to its first wait; return where that is."""
    loop = asyncio.new_event_loop()
    try:
        step(loop, coroutine)
        return where(coroutine)
    finally:
        coroutine.close()
        loop.close()


@pytest.mark.parametrize(
    ("waiting", "named"),
    [
        (waits_here, waits_here),
        (calls_on, waits_here),
        (waits_in_a_library, waits_in_a_library),
        (through_a_generator, waits_here),
        (through_an_async_generator, numbers),
        (through_anext, numbers),
        (through_asend, numbers),
        (through_a_wrapper, waits_here),
    ],
)
def test_suspended_work_is_at_the_innermost_line_of_the_app(
    waiting: Callable[[], Any], named: Callable[[], Any]
) -> None:
    assert where_it_waits(waiting()) == line_of(named, "here")


def test_where_no_line_is_the_apps_a_package_is_named_and_not_the_standard_library() -> None:
    """The client of such a response reads slowly. `asyncio/locks.py` would tell nobody that."""
    flow = FlowControl(asyncio.Transport())
    flow.pause_writing()
    said = where_it_waits(flow.drain())
    assert re.fullmatch(r".*/uvicorn/protocols/http/flow_control\.py:\d+ in drain", said)


@pytest.mark.parametrize("nothing", [None, object(), 1])
def test_what_is_no_coroutine_is_nowhere(nothing: object) -> None:
    assert where(nothing) == ""
    assert await_chain(nothing) == ([], None)


def test_a_coroutine_that_has_ended_is_nowhere() -> None:
    coroutine = waits_here()
    coroutine.close()
    assert where(coroutine) == ""


def test_the_chain_goes_from_the_outermost_frame_to_the_innermost() -> None:
    coroutine = through_a_generator()
    coroutine.send(None)
    names = [frame.f_code.co_name for frame in await_chain(coroutine)[0]]
    coroutine.close()
    assert names == [
        "through_a_generator",
        "old_style",
        "waits_here",
        "sleep",
        "__sleep0",
    ]


def test_the_chain_begins_in_an_async_generator_as_well() -> None:
    generator: Any = numbers()
    first = generator.__anext__()
    first.send(None)
    names = [frame.f_code.co_name for frame in await_chain(generator)[0]]
    with pytest.raises(GeneratorExit):
        first.throw(GeneratorExit)
    assert names == ["numbers", "sleep", "__sleep0"]
