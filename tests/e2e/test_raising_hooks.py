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
import asyncio, functools, itertools, logging, os
from e2e.app import bare
from graceful_asgi import Drainer, GracefulMiddleware

class OddError(BaseException):
    pass

KINDS = [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, OddError]
drainer = Drainer()

def fail(kind, *args):
    raise kind(5)

if os.environ["WHERE"] == "hooks":
    for kind in KINDS:  # all of them are called at each change
        drainer.add_hook(functools.partial(fail, kind))
else:
    turns = itertools.cycle(KINDS)  # the next for each record
    logging.getLogger("graceful_asgi").addFilter(lambda record: fail(next(turns)))
app = GracefulMiddleware(bare, drainer=drainer)
"""
KINDS = ["ValueError", "SystemExit", "KeyboardInterrupt", "CancelledError", "OddError"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("where", ["hooks", "filter"])
def test_whatever_a_hook_or_a_filter_raises_costs_no_request(
    tmp_path: Path, beside: ThreadPoolExecutor, where: str, loop: str
) -> None:
    (tmp_path / "hooked.py").write_text(PROGRAM)
    env = {"WHERE": where}
    with uvicorn(tmp_path, app="hooked:app", loop=loop, env=env, lame_duck=0.2, grace=10) as server:
        slow = [beside.submit(get, server.port, f"/slow?s=1.2&name={n}") for n in "abc"]
        server.wait_for("slow began", count=3)
        server.signal(signal.SIGTERM)
        assert [answer.result().body for answer in slow] == [b"slow, but complete"] * 3
        assert server.wait() == 0
        assert [kind for kind in KINDS if kind not in server.log] == []
