"""Each program starts, serves, and drains under load: nothing lost, exit code 0, a quiet log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from support.need import need
from support.trial import detail, run_trial

from graceful_asgi._check.client.plan import LoadPlan
from graceful_asgi._check.result.verdict import judge

from .programs_under_test import Program, assert_balanced, assert_quiet, server_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server

    from graceful_asgi._check.result.verdict import Verdict

QUERY = (
    "with+recursive+n(x)+as+(select+1+union+all+select+x%2B1+from+n+limit+2000000)"
    "+select+count(*)+from+n"
)
"""A query that takes about a second."""


SLOW = {"slow_path": "/slow?s=1"}
STREAM = {**SLOW, "stream_path": "/stream"}
PROGRAMS = [
    Program(
        "fastapi_app:app",
        "fastapi itsdangerous",
        {
            **STREAM,
            "upload_path": "/upload",
            "websocket_path": "/ws",
            "event_stream_path": "/events",
        },
        says="ledger: background task",
    ),
    Program("django_app:app", "django", STREAM),
    Program("django_app:app", "django", {"slow_path": "/sync?s=1"}),
    Program("channels_app:app", "channels", {**STREAM, "websocket_path": "/ws"}),
    Program(
        "litestar_app:app",
        "litestar",
        {**STREAM, "websocket_path": "/ws"},
        says="ledger: background task",
    ),
    Program("litestar_app:app", "litestar", {"slow_path": "/sync?s=1"}),
    Program(
        "quart_app:app",
        "quart",
        {**STREAM, "websocket_path": "/ws"},
        says="ledger: background task",
    ),
    Program("quart_app:app", "quart", {"slow_path": "/sync?s=1"}),
    Program("datasette_app:app", "datasette", {"slow_path": f"/_memory.json?sql={QUERY}"}),
    Program("sqlalchemy_app:app", "sqlalchemy aiosqlite", SLOW, says="rows: "),
    Program("flask_app:app", "a2wsgi flask", {**STREAM, "upload_path": "/upload"}),
    Program("telemetry_app:inside", "opentelemetry.instrumentation.fastapi", SLOW, says="spans: "),
    Program("telemetry_app:around", "opentelemetry.instrumentation.fastapi", SLOW, says="spans: "),
    Program("socketio_app:inside", "socketio", SLOW),
    Program("strawberry_app:app", "strawberry", {"slow_path": "/slow?s=1"}),
    Program("vllm_like", "fastapi", SLOW, says="the engine has ended"),
    Program("litellm_like", "fastapi httpx", SLOW, says="code after uvicorn.run"),
]


def stop_under_load(program: Program, server: Server) -> Verdict:
    plan = LoadPlan(
        keep_alive_clients=6, fresh_clients=2, think_period=0.05, single_after=0.3, **program.paths
    )

    async def run() -> Verdict:
        return judge([await run_trial(server, plan, answers=20, signal_after=0.8, exit_period=60)])

    return anyio.run(run)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_drains_under_load(tmp_path: Path, program: Program) -> None:
    need(*program.needs.split())
    server = server_of(program, tmp_path)
    verdict = stop_under_load(program, server)
    assert verdict.clean, (verdict.as_dict(), server.log)
    assert {finding.result for finding in verdict.findings} <= {"passed", "not run"}
    assert verdict.load.before.served > 10
    assert detail(verdict, "slow request") == "200 complete"
    assert verdict.exit_code == 0
    assert server.count("clean after") == 1
    assert program.says in server.log
    assert_balanced(server.log)
    assert_quiet(server.log)
