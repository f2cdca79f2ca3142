"""What all test modules share: the event loops, an environment without a policy, threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import coverage
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# A busy machine is slow, and that is no failure.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run each async test on both event loops; modules in virtual time choose their own."""
    return request.param


@pytest.fixture(autouse=True)
def _no_policy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in tuple(os.environ):
        if variable.startswith("GRACEFUL_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """A pool of threads for clients; each client gives up by itself, so none outlives its test."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Save the coverage of a process of pytest-xdist before its parent counts the seconds.

    coverage saves in an atexit function. Ten seconds after the last test
    (`xdist.workermanage.NodeManager.EXIT_TIMEOUT`) the parent kills a process that has not ended,
    and all that it has measured is lost. On a busy machine the exit takes longer at times: threads
    are joined first, then the data of a thousand tests are written.
    """
    measuring = coverage.Coverage.current()
    if measuring is not None and hasattr(session.config, "workerinput"):
        measuring.stop()
        measuring.save()
