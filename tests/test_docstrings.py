"""Docstrings begin with the verb of what is done, or with the noun for what is there (PEP 257)."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import graceful_asgi

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(graceful_asgi.__file__).parent
TESTS = Path(__file__).parent
RIDDLES = {"What", "Who", "Whom", "Whose", "Whether", "Which", "When", "Where", "How", "Why"}
ORDERS_THAT_SAY_LITTLE = {"Be", "Have", "Let", "Say"}
"""A reader does not learn from these what the function does."""
FRAGMENTS = {"After", "At", "By", "For", "From", "Has", "In", "Is", "It", "Not", "Of", "Those"}
"""The sentences of attributes and classes name what is there first."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(source: str) -> Iterator[tuple[str, str]]:
    """Yield each docstring, after the name of its place: a module, class, function or attribute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "the module"), text
        body = getattr(node, "body", None)
        for above, below in itertools.pairwise(body if isinstance(body, list) else ()):
            match above, below:
                case (
                    ast.Assign(targets=[target]) | ast.AnnAssign(target=target),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    yield ast.unparse(target), text


def openers(source: str, words: set[str] = RIDDLES | ORDERS_THAT_SAY_LITTLE) -> dict[str, str]:
    """Return the first line of each docstring that begins with one of *words*, by its place."""
    return {
        name: text.splitlines()[0]
        for name, text in docstrings(source)
        if text.split()[0].strip(".,:") in words
    }


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_docstrings_begin_with_what_is_done(folder: Path) -> None:
    found = {
        f"{path.relative_to(folder)}: {name}: {line}"
        for path in folder.rglob("*.py")
        for name, line in openers(path.read_text(encoding="utf-8")).items()
    }
    assert found == set()


def test_docstrings_of_the_package_begin_with_whole_sentences() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {name}: {line}"
        for path in PACKAGE.rglob("*.py")
        for name, line in openers(path.read_text(encoding="utf-8"), FRAGMENTS).items()
    }
    assert found == set()


def test_the_words_are_found_in_all_places_that_have_docstrings() -> None:
    source = '''"""How it is."""
A: int = 1
"""How many."""
class B:
    "Who."
    async def f(self):
        "Have it done."
        self.c = 1
        """What it is."""
'''
    assert openers(source).keys() == {"the module", "A", "B", "f", "self.c"}
