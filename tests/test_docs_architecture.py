"""The page on the architecture: what it names is there, and its rooms are those of the package."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from typing import TYPE_CHECKING

import pytest
from support.docs import ROOT
from test_architecture import ROOMS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w.]+)`\s+\(`(_[\w/]+\.py)`\)", PAGE)))


def definitions(path: Path) -> set[str]:
    """Return the classes, functions and methods of a module, and the module's own name."""
    found = {path.stem}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if hasattr(each, "name")}
    return found


@pytest.mark.parametrize(("name", "module"), NAMED)
def test_what_the_page_names_is_where_it_says(name: str, module: str) -> None:
    assert name in definitions(ROOT / "graceful_asgi" / module)


@pytest.mark.parametrize("module", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_each_file_that_the_page_names_is_there(module: str) -> None:
    # One that stands beside another is named without its folder.
    found = [*(ROOT / "graceful_asgi").rglob(module), *ROOT.glob(module)]
    assert len(found) == 1, found


def test_the_page_names_the_way_of_a_signal() -> None:
    assert len(NAMED) > 20


def test_the_picture_shows_the_rooms_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    drawings = importlib.import_module("drawings")
    monkeypatch.delitem(sys.modules, "drawings")
    drawn = [sorted(name for name, _ in row if name[0] == "_") for row in drawings.ROOMS]
    rooms = [sorted(name for name in row if re.match("_[a-z]", name)) for row in ROOMS]
    assert [row for row in drawn if row] == [row for row in rooms if row]
