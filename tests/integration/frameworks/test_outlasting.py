"""A request without an answer gets its 503 in time, also where its app cannot be cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.client import Client
from support.need import need
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from pathlib import Path

APPS = ["fastapi_app", "make_django_app"]
REQUESTS = 4


def serving(directory: Path, app: str, http: str, loop: str, *, cancel: float) -> Server:
    need("django")
    factory = [] if app == "fastapi_app" else ["--factory"]
    return uvicorn(
        directory,
        *factory,
        app=f"integration.frameworks.programs.outlasting_app:{app}",
        http=http,
        loop=loop,
        lame_duck=0.3,
        grace=1,
        cancel=cancel,
        cleanup=5,
    )


@pytest.mark.parametrize(("http", "loop"), [("httptools", "asyncio"), ("h11", "uvloop")])
@pytest.mark.parametrize("app", APPS)
def test_an_endpoint_that_outlasts_the_cancel_period_is_answered_for(
    tmp_path: Path, app: str, http: str, loop: str
) -> None:
    with serving(tmp_path, app, http, loop, cancel=0.5) as server:
        clients = [Client(server.port) for _ in range(REQUESTS)]
        for number, client in enumerate(clients, start=1):
            client.request("/report?s=3600")
            # Django has its views of one thread wait for each other; the first is enough.
            server.wait_for("report began", count=1 if app == "make_django_app" else number)
        server.terminate()
        answers = [client.response() for client in clients]
        assert server.wait() == 1
        for client in clients:
            client.close()
    assert [(answer.status, answer.closes) for answer in answers] == [(503, True)] * REQUESTS
    assert all(1 <= int(answer.headers["retry-after"]) <= 5 for answer in answers)
    assert f"0 completed, 0 closed, {REQUESTS} cancelled, 0 aborted" in server.log
    assert "Exception in ASGI application" not in server.log
    assert "500 Internal" not in server.log


@pytest.mark.parametrize("app", APPS)
def test_what_it_says_after_that_is_ignored(tmp_path: Path, app: str) -> None:
    """It returns within the cancel period, or after it: to a client that has its answer."""
    with (
        serving(tmp_path, app, "httptools", "asyncio", cancel=0.3) as server,
        Client(server.port) as client,
    ):
        client.request("/report?s=4")
        server.wait_for("report began")
        server.terminate()
        answer = client.response()
        assert (answer.status, answer.closes) == (503, True)
        assert server.wait() == 1
    assert "0 completed, 0 closed, 1 cancelled, 0 aborted" in server.log
    assert "Exception in ASGI application" not in server.log
