"""The example of the how-to page for OpenTelemetry: what its spans show of a drain."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from support.client import Client, get
from support.docs import how_to
from support.need import need
from support.server import uvicorn

if TYPE_CHECKING:
    from pathlib import Path


def spans(log: str) -> dict[str, Any]:
    """Return the spans that the console exporter has printed, by their names."""
    printed = re.findall(r"^\{$.*?^\}$", log, re.M | re.S)
    return {span["name"]: span for span in map(json.loads, printed)}


def test_the_spans_show_which_request_was_answered_and_which_was_not(tmp_path: Path) -> None:
    need("opentelemetry.sdk", "opentelemetry.instrumentation.fastapi")
    (tmp_path / "example.py").write_text(how_to("opentelemetry"), encoding="utf-8")
    with (
        uvicorn(tmp_path, app="example:app", lame_duck=0.5, grace=3, cleanup=10) as server,
        Client(server.port) as slow,
        Client(server.port) as hung,
    ):
        assert get(server.port, "/readyz").status == 200
        slow.request("/slow")
        hung.request("/hang")
        server.terminate()
        assert (slow.response().status, hung.response().status) == (200, 503)
        assert server.wait() == 1
        seen = spans(server.log)
    assert seen["GET /slow"]["status"]["status_code"] == "UNSET"
    assert seen["GET /slow"]["attributes"]["http.status_code"] == 200
    assert seen["GET /hang"]["status"]["status_code"] == "ERROR"
    assert seen["GET /hang"]["attributes"]["http.status_code"] == 503
    assert seen["drain: draining"]["attributes"]["drain.reason"] == "SIGTERM"
    assert not any("readyz" in json.dumps(span) for span in seen.values())
