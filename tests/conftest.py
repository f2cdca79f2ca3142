"""Fixtures of all test modules: event loops, no policy in the environment, threads, networks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import coverage
import pytest
from hypothesis import HealthCheck, settings
from support.network import DELAYS, make_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.network import Network

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


@pytest.fixture(scope="module", params=DELAYS, ids=lambda delay: f"{delay * 1000:g} ms")
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network with a delay, one after the other; `@over(0.02)` names the delay of a test.

    Tests of a module share it, so a server has to be gone at the end of its test.
    """
    with make_network(request.param) as made:
        yield made


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
