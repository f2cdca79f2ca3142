"""The event loop of the tests of the load check."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The check's client is built on asyncio; trio is no backend of it."""
    return "asyncio"
