"""Clients that ask again and again while a test stops their server."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .polling import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def repeated(ask: Callable[[threading.Event], object], *, threads: int) -> Iterator[None]:
    """Call *ask* again and again in so many threads, for the length of a block.

    Its argument is set at the end of the block.
    """
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            ask(over)

    started = [threading.Thread(target=run) for _ in range(threads)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in started:
            thread.join(PATIENCE)
