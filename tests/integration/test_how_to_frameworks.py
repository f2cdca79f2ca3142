"""The examples of the how-to page for frameworks: each drains with its request in flight."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from support.client import Client
from support.docs import ROOT, examples
from support.need import need, need_program
from support.polling import wait_until
from support.ports import free_port
from support.server import Periods, Server, uvicorn

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = [text for _, text in examples(ROOT / "docs" / "how-to" / "frameworks.md")]
PERIODS: Periods = {"lame_duck": 0.5, "grace": 60.0, "cleanup": 10.0}


def example(framework: str) -> str:
    """Return the example that imports *framework*."""
    need(framework)
    (found,) = (
        text for text in EXAMPLES if re.search(rf"^(from|import) {framework}\b", text, re.M)
    )
    return found


@pytest.mark.parametrize("framework", ["starlette", "django", "quart", "litestar"])
def test_a_request_in_flight_is_answered(tmp_path: Path, framework: str) -> None:
    (tmp_path / "example.py").write_text(example(framework), encoding="utf-8")
    with (
        uvicorn(tmp_path, app="example:app", lame_duck=0.5, grace=60, cleanup=10) as server,
        Client(server.port) as slow,
    ):
        slow.request("/slow")
        server.terminate()
        assert slow.response().body == b"done"
        assert server.wait() == 0
        assert server.count("hooked uvicorn.server.Server") == 1
        assert server.count("clean after") == 1
        assert "1 completed" in server.log
        assert "Traceback" not in server.log


def test_datasette_drains_with_the_plugin(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "graceful.py").write_text(example("datasette"), encoding="utf-8")
    port = free_port()
    command = [need_program("datasette"), "--memory", "--plugins-dir", str(plugins)]
    options = ["--port", str(port), "--setting", "sql_time_limit_ms", "60000"]
    counted = "with recursive n(x) as (select 1 union all select x%2B1 from n limit 3000000)"
    query = f"{counted} select count(*) as c from n".replace(" ", "+")
    with (
        Server(
            [*command, *options], tmp_path, port=port, ready="Uvicorn running on", periods=PERIODS
        ) as server,
        Client(port) as slow,
    ):
        slow.request(f"/_memory.json?sql={query}&_shape=array")
        server.terminate()
        assert slow.response().body == b'[{"c": 3000000}]'
        assert server.wait() == 0
        assert "1 completed" in server.log


def test_a_gradio_page_gets_the_answer_that_was_on_its_way(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio takes 220 MB: install it by hand")
    client = pytest.importorskip("gradio_client")
    (tmp_path / "example.py").write_text(example("gradio"), encoding="utf-8")
    with uvicorn(tmp_path, app="example:app", lame_duck=0.5, grace=60, cleanup=10) as server:
        job = client.Client(f"http://127.0.0.1:{server.port}", verbose=False).submit("hello")
        wait_until(lambda: server.count("/gradio_api/queue/data"), "the job is under way")
        server.signal(signal.SIGTERM)
        assert job.result(timeout=10) == "HELLO"
        assert server.wait() == 0
