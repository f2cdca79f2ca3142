"""The cost of `from graceful_asgi import GracefulMiddleware`, counted: the same on any machine.

Most of the time of an import goes into files that are loaded, and into the code that dataclasses
write and compile. What only a server needs is loaded when one starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support.docs import ROOT

MOST_MODULES = 35
MOST_COMPILED = 100
"""Pieces of code: a frozen dataclass writes six or more (one on Python 3.13), a NamedTuple one."""

COUNT = """
import json, sys
import anyio, starlette.applications, starlette.responses, starlette.routing, uvicorn

compiled = []
before = set(sys.modules)

def hook(event, arguments):
    if event == "compile" and arguments[1] in (None, "<string>"):
        compiled.append(arguments[1])

sys.addaudithook(hook)
from graceful_asgi import GracefulMiddleware
ours = [name for name in set(sys.modules) - before if name.startswith("graceful_asgi")]
print(json.dumps({"modules": sorted(ours), "compiled": len(compiled)}))
"""


@pytest.fixture(scope="module")
def imported() -> Any:
    command = [sys.executable, "-c", COUNT]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_it_loads_few_modules(imported: Any) -> None:
    assert len(imported["modules"]) <= MOST_MODULES, imported["modules"]


def test_the_page_on_the_cost_says_how_many(imported: Any) -> None:
    page = (ROOT / "docs" / "explanation" / "cost.md").read_text(encoding="utf-8")
    assert f"loads {len(imported['modules'])} modules of this package" in page


@pytest.mark.parametrize(
    "room",
    ["_check", "_cli", "_control.server", "_diagnostics.stacks", "_run", "_servers", "report"],
)
def test_it_loads_nothing_that_it_may_never_need(room: str, imported: Any) -> None:
    assert not [name for name in imported["modules"] if name.startswith(f"graceful_asgi.{room}")]


def test_its_classes_compile_little_code(imported: Any) -> None:
    assert imported["compiled"] <= MOST_COMPILED
