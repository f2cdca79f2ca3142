"""Code of the program that a drain calls: whatever it raises is logged, and costs no request."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from support.client import get
from support.server import uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

PROGRAM = """
import asyncio, logging, os
from e2e.app import bare
from graceful_asgi import Drainer, GracefulMiddleware

class Odd(BaseException):
    pass

def fail(*args):
    raise {
        "an error": ValueError,
        "an exit": SystemExit,
        "an interrupt": KeyboardInterrupt,
        "a cancellation": asyncio.CancelledError,
        "something else": Odd,
    }[os.environ["RAISES"]](5)

drainer = Drainer()
if os.environ["WHERE"] == "hook":
    drainer.add_hook(fail)
else:
    logging.getLogger("graceful_asgi").addFilter(fail)
app = GracefulMiddleware(bare, drainer=drainer)
"""
KINDS = ["an error", "an exit", "an interrupt", "a cancellation", "something else"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("where", ["hook", "filter"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_hook_or_a_filter_raises_costs_no_request(
    tmp_path: Path, beside: ThreadPoolExecutor, kind: str, where: str, loop: str
) -> None:
    (tmp_path / "hooked.py").write_text(PROGRAM)
    env = {"RAISES": kind, "WHERE": where}
    with uvicorn(tmp_path, app="hooked:app", loop=loop, env=env, lame_duck=0.2, grace=10) as server:
        slow = [beside.submit(get, server.port, f"/slow?s=1.2&name={n}") for n in "abc"]
        server.wait_for("slow began", count=3)
        server.signal(signal.SIGTERM)
        assert [answer.result().body for answer in slow] == [b"slow, but complete"] * 3
        assert server.wait() == 0
        names = {"an exit": "SystemExit", "a cancellation": "CancelledError"}
        assert names.get(kind, "Error" if kind == "an error" else "") in server.log
