"""A pytest plugin for other people's suites: the middleware around every app, and the outcomes.

It stands alone on the path of the suite's own environment, as `around`. With SUITES_AROUND=1 every
app that a server, a `TestClient`, an `ASGITransport` or a `LifespanManager` is given is put into a
`GracefulMiddleware` of its own, once, as a program does; the outcomes go to SUITES_OUTCOMES.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_around: dict[int, tuple[Any, Any]] = {}


def around(app: Any) -> Any:
    """Return the middleware around *app*: always the same one, so an app may be served again."""
    from graceful_asgi import GracefulMiddleware

    if isinstance(app, GracefulMiddleware):
        return app
    if id(app) not in _around:
        _around[id(app)] = (app, GracefulMiddleware(app))
    return _around[id(app)][1]


def _takes_an_app(module: str, name: str, *, if_app: Callable[[Any], bool] | None = None) -> None:
    """Patch a class so that it puts the app it is made with into the middleware."""
    try:
        kind: Any = getattr(importlib.import_module(module), name)
    except ImportError:
        return
    make = kind.__init__

    @functools.wraps(make)
    def init(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        wanted = if_app is None or if_app(app)
        make(self, around(app) if wanted else app, *args, **kwargs)
        if wanted and getattr(self, "app", None) is around(app):
            self.app = app  # tests look at it

    kind.__init__ = init


def _is_asgi3(app: Any) -> bool:
    from starlette import testclient

    return testclient._is_asgi3(app)


def _uvicorn_loads_an_app() -> None:
    try:
        config: Any = importlib.import_module("uvicorn").Config
    except ImportError:
        return
    load = config.load

    @functools.wraps(load)
    def loads(self: Any) -> None:
        load(self)
        self.loaded_app = around(self.loaded_app)

    config.load = loads


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("SUITES_AROUND") == "1":
        _takes_an_app("starlette.testclient", "TestClient", if_app=_is_asgi3)
        _takes_an_app("httpx", "ASGITransport")
        _takes_an_app("httpx2", "ASGITransport")
        _takes_an_app("asgi_lifespan", "LifespanManager")
        _uvicorn_loads_an_app()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(Path(os.environ["SUITES_OUTCOMES"])))


class Outcomes:
    """Writes how each test has ended, by its node id."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(report, "failed")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._note(report, report.outcome)

    def _note(self, report: pytest.CollectReport | pytest.TestReport, outcome: str) -> None:
        if self._outcomes.get(report.nodeid) != "failed":  # a failure of any phase is one
            self._outcomes[report.nodeid] = outcome
        if outcome == "failed":
            self._reasons[report.nodeid] = str(report.longrepr)[-4000:]

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps({"outcomes": self._outcomes, "reasons": self._reasons}))
