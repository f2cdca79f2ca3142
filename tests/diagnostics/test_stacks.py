"""The place of running code, in words, and the stacks of threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from support.polling import wait_until

from graceful_asgi._diagnostics.stacks import compressed, thread_stacks
from graceful_asgi._diagnostics.trail import trail_of
from graceful_asgi.threads import BareThread

from .waiting import Blocked, line_of, step, waits_in_a_library

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graceful_asgi._diagnostics.stacks import ThreadStack


def test_every_other_thread_is_shown_with_the_lines_of_the_app_and_their_source(
    blocked: tuple[Blocked, Any],
) -> None:
    shown: list[ThreadStack] = []

    def ask() -> None:
        # On its way to the lock that it waits for, the blocked thread makes some more calls.
        wait_until(lambda: that_blocks(thread_stacks()).lines[-1] == "(2 calls in threading)")
        shown.extend(thread_stacks())

    def that_blocks(stacks: Iterable[ThreadStack]) -> ThreadStack:
        (found,) = (stack for stack in stacks if any("in blocks" in line for line in stack.lines))
        return found

    thread = threading.Thread(target=ask, name="who asks")
    thread.start()
    thread.join()
    (main,) = (stack for stack in shown if stack.name == "main thread")
    assert any("test_every_other_thread_is_shown" in line for line in main.lines)
    *_, line, library = that_blocks(shown).lines
    assert line == f"{line_of(Blocked.blocks, 'here')}: self.release.wait(PATIENCE)  # here"
    assert library == "(2 calls in threading)"
    assert not any(stack.name == "who asks" for stack in shown)


def test_a_thread_without_a_line_of_the_app_is_shown_with_that_of_a_library() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="idle")
    thread.start()
    (idle,) = (stack for stack in thread_stacks() if stack.name == "idle")
    ended.set()
    thread.join()
    (line,) = idle.lines
    assert "threading.py" in line


def test_threads_of_this_package_are_left_out() -> None:
    idents, begun, ended = list[int](), threading.Event(), threading.Event()

    def run() -> bool:
        idents.append(threading.get_ident())
        begun.set()
        ended.wait()
        return False

    thread = BareThread(run, wake=ended.set, lost=ended.set, forget=ended.set)
    assert thread.start()
    assert begun.wait(10)
    shown = {stack.name for stack in thread_stacks()}
    ended.set()
    assert f"thread {idents[0]}" not in shown


def test_libraries_are_told_in_a_word_between_the_lines_of_the_app() -> None:
    loop = asyncio.new_event_loop()
    coroutine = waits_in_a_library()
    step(loop, coroutine)
    lines = list(compressed(trail_of(coroutine).frames))
    coroutine.close()
    loop.close()
    assert lines == [line_of(waits_in_a_library, "here"), "(1 call in asyncio)"]
