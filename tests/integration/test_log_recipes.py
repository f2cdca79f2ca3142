"""The examples of the page on the log, as they stand there, on a real server that is stopped."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from support.client import get
from support.docs import how_to
from support.need import need
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

PAGE = "read-the-log"
QUIET, JSON, STRUCTLOG, LOGURU, QUEUE = range(5)
MODULES = {
    QUIET: (),
    JSON: ("pythonjsonlogger",),
    STRUCTLOG: ("structlog",),
    LOGURU: ("loguru",),
    QUEUE: (),
}
SLOW = """
import asyncio

@app.get("/slow")
async def slow(s: float = 1.0):
    print("slow began", flush=True)
    await asyncio.sleep(s)

@app.get("/stuck")
async def stuck():
    print("slow began", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@app.get("/broken")
async def broken():
    from graceful_asgi.log import failed
    try:
        raise ValueError("broken")
    except ValueError:
        failed("a hook failed")
"""


def server(directory: Path, number: int, source: str = "", **periods: Any) -> Server:
    need("fastapi", *MODULES[number])
    example = source or how_to(PAGE, number)
    (directory / "example.py").write_text(example + SLOW, encoding="utf-8")
    return uvicorn(
        directory,
        "--no-access-log",
        app="example:app",
        **{"grace": 10, "cleanup": 10, **periods},
    )


def drained(running: Server, beside: ThreadPoolExecutor) -> str:
    """Stop the server with a request in flight; return its log."""
    slow = beside.submit(get, running.port, "/slow")
    running.wait_for("slow began")
    running.signal(signal.SIGTERM)
    assert slow.result().status == 200
    assert running.wait() == 0
    return running.log


def objects(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_a_level_of_its_own_silences_what_is_no_warning(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with server(tmp_path, QUIET, lame_duck=0.2) as running:
        assert "drain [" not in drained(running, beside)


def test_json_has_the_sentence_and_the_figures(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    with server(tmp_path, JSON, lame_duck=0.2) as running:
        get(running.port, "/broken")
        lines = objects(drained(running, beside))
    [report] = [line for line in lines if line.get("graceful.event") == "drain.report"]
    assert report["levelname"] == "INFO"
    assert ": clean after " in report["message"]
    assert (report["graceful.completed"], report["graceful.clean"]) == (1, True)
    [failed] = [line for line in lines if line.get("graceful.event") == "drain.failed"]
    assert failed["exc_info"].endswith("ValueError: broken")
    assert any("Application startup complete" in line["message"] for line in lines)


def test_structlog_keeps_the_sentence_of_a_record(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with server(tmp_path, STRUCTLOG, lame_duck=0.2) as running:
        get(running.port, "/broken")
        lines = objects(drained(running, beside))
    phases = [line for line in lines if line.get("graceful.event") == "drain.phase"]
    assert [line["graceful.phase"] for line in phases][:2] == ["lame duck", "draining"]
    assert all(f"{line['graceful.phase']} (SIGTERM): " in line["event"] for line in phases)
    [report] = [line for line in lines if line.get("graceful.event") == "drain.report"]
    assert (report["level"], report["graceful.completed"]) == ("info", 1)
    assert ": clean after " in report["event"]
    [failed] = [line for line in lines if line.get("graceful.event") == "drain.failed"]
    assert failed["exception"].endswith("ValueError: broken")


def test_loguru_has_the_sentence_the_figures_and_the_exception(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with server(tmp_path, LOGURU, lame_duck=0.2) as running:
        get(running.port, "/broken")
        lines = [line["record"] for line in objects(drained(running, beside))]
    [report] = [line for line in lines if line["extra"].get("graceful.event") == "drain.report"]
    assert report["level"]["name"] == "INFO"
    assert ": clean after " in report["message"]
    assert report["extra"]["graceful.completed"] == 1
    [failed] = [line for line in lines if line["extra"].get("graceful.event") == "drain.failed"]
    assert failed["exception"]["type"] == "ValueError"


# A QueueHandler: a listener's thread ends with the process

SLOW_SINK = """
import time
class SlowSink(logging.StreamHandler):
    def emit(self, record):
        time.sleep(0.05)
        super().emit(record)
"""


def queued(*, stopped: bool) -> str:
    example = how_to(PAGE, QUEUE).replace("logging.StreamHandler()", "SlowSink()")
    assert "SlowSink()" in example
    head, start, rest = example.partition("records = ")
    if not stopped:
        rest = rest.replace("atexit.register(listener.stop)\n", "")
    return head + SLOW_SINK + start + rest


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped at exit", "never stopped"])
def test_the_last_line_reaches_the_sink_of_a_queue_handler(
    tmp_path: Path, beside: ThreadPoolExecutor, stopped: bool
) -> None:
    source = queued(stopped=stopped)
    with server(tmp_path, QUEUE, source, lame_duck=0.2) as running:
        log = drained(running, beside)
    assert "stopped (SIGTERM): nothing is left in flight\n" in log
    assert log.count(": clean after ") == 1


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped at exit", "never stopped"])
def test_the_report_at_the_hard_deadline_reaches_the_sink_of_a_queue_handler(
    tmp_path: Path, beside: ThreadPoolExecutor, stopped: bool
) -> None:
    """The process ends by `os._exit` there, which runs nothing at all."""
    source = queued(stopped=stopped)
    with server(tmp_path, QUEUE, source, lame_duck=0.1, grace=0.3, cleanup=0.3) as running:
        beside.submit(get, running.port, "/stuck")
        running.wait_for("slow began")
        running.signal(signal.SIGTERM)
        assert running.wait() == 1
    assert "stuck: http GET /stuck" in running.log
    assert "hard deadline: " in running.log
