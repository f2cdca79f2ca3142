"""Docstrings begin with the verb of what is done, or with the noun for what is there (PEP 257)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import graceful_asgi

PACKAGE = Path(graceful_asgi.__file__).parent
TESTS = Path(__file__).parent
RIDDLES = {"What", "Who", "Whom", "Whose", "Whether", "Which", "When", "Where", "How", "Why"}
ORDERS_THAT_SAY_LITTLE = {"Be", "Have", "Let", "Say"}
"""A reader does not learn from these what the function does."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def openers(source: str) -> dict[str, str]:
    """Return the first line of each docstring that begins with one of these words, by its place."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        text = ast.get_docstring(node) if isinstance(node, Documented) else None
        if text and text.split()[0].strip(".,:") in RIDDLES | ORDERS_THAT_SAY_LITTLE:
            found[getattr(node, "name", "the module")] = text.splitlines()[0]
    return found


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_docstrings_begin_with_what_is_done(folder: Path) -> None:
    found = {
        f"{path.relative_to(folder)}: {name}: {line}"
        for path in folder.rglob("*.py")
        for name, line in openers(path.read_text(encoding="utf-8")).items()
    }
    assert found == set()


def test_the_words_are_found_in_all_places_that_have_docstrings() -> None:
    source = '"""How it is."""\nclass A:\n "Who."\n async def f(self):\n  "Have it done."'
    assert openers(source).keys() == {"the module", "A", "f"}
