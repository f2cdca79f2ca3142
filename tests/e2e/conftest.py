"""What the end-to-end tests share: requests that run beside the test."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """A pool of threads for clients; each client gives up by itself, so none outlives its test."""
    with ThreadPoolExecutor(32) as pool:
        yield pool
