"""Fixtures of the tests with official clients."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The clients are built on asyncio, or run on it as well as on trio: one backend is enough."""
    return "asyncio"
