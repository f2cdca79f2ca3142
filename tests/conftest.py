"""Fixtures of all test modules: event loops, no policy in the environment, threads, networks."""

from __future__ import annotations

import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import coverage
import pytest
from hypothesis import HealthCheck, settings
from support.network import DELAYS, make_network
from support.polling import PATIENCE

from graceful_asgi import log

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


@pytest.fixture(scope="session", autouse=True)
def _programs_get_signals_that_this_process_ignores() -> None:
    """Undo what the programs of the tests would inherit: signals that the suite's parent ignores.

    `nohup` ignores SIGHUP; a shell without job control ignores SIGINT and SIGQUIT for what it runs
    in the background. A program inherits that, but no handler: this process goes on ignoring them.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


@pytest.fixture(autouse=True)
def _no_policy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in tuple(os.environ):
        if variable.startswith("GRACEFUL_"):
            monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def _log_is_written() -> Iterator[None]:
    """Wait for the thread that writes the log. What is late would be in the next test's `caplog`.

    A server ends that thread, and does not wait for it.
    """
    yield
    log.is_written(PATIENCE)


@pytest.fixture(autouse=True)
def _uvicorns_loggers_as_they_were() -> Iterator[None]:
    """Undo what a `uvicorn.Config` of the test does to the loggers of the whole process.

    At its trace level, for one, uvicorn wraps `receive` and `send` of every server after it.
    """
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each.level, each.handlers.copy(), each.propagate) for each in loggers]
    yield
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


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
