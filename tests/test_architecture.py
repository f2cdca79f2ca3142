"""The shape of the package: which room may import which, no circles, no long file, no name twice.

An import for types only counts as any other: a type that makes a circle is in the wrong room.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import graceful_asgi

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(graceful_asgi.__file__).parent
TESTS = Path(__file__).parent
WRONG_USES = TESTS / "typing" / "api.py"
"""Each of its suppressions is what it tests: mypy fails where one is not needed."""
LONGEST = 400
"""Lines of a file. One that is longer holds more than one idea."""

ROOMS = [
    ["__init__", "__main__", "testing"],
    ["_cli"],
    ["_check", "_run"],
    ["prometheus"],
    ["_asgi"],
    ["_servers"],
    ["_extensions"],
    ["_control"],
    ["_core"],
    ["_diagnostics"],
    [
        "log",
        "log_writer",
        "policy",
        "option",
        "phase",
        "report",
        "event_loop",
        "types",
        "errors",
        "threads",
        "text",
    ],
]
"""From the top to the ground. A room imports from those below it, and from itself; rooms of one
line know nothing of each other, but for those of the first and of the last."""

SUPPRESSION = re.compile(r"# (type: ignore|noqa|pragma: no)[^#]*(?P<reason># \w.+)?$")

ENTRY_POINTS = {"command"}
"""Names that each module of a room has, so that another room finds them there."""


@cache
def modules() -> dict[str, ast.Module]:
    """Return each module of the package, by its name without the package's own."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def is_package(name: str) -> bool:
    return (PACKAGE / Path(*name.split("."))).is_dir()


def imports(name: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports, wherever in it that is written."""
    here = [] if name == "__init__" else name.split(".")
    folder = here if is_package(name) else here[:-1]
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE.name:
                    yield ".".join(alias.name.split(".")[1:]) or "__init__"
        elif isinstance(node, ast.ImportFrom):
            given = (node.module or "").split(".") if node.module else []
            if node.level:
                base = folder[: len(folder) - node.level + 1] + given
            elif given[:1] == [PACKAGE.name]:
                base = given[1:]
            else:
                continue
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                yield inner if inner in modules() else ".".join(base) or "__init__"


@cache
def arrows() -> dict[str, frozenset[str]]:
    return {name: frozenset(imports(name)) - {name} for name in modules()}


def level(module: str) -> int:
    room = module.split(".")[0]
    return next(number for number, rooms in enumerate(ROOMS) if room in rooms)


def is_allowed(importer: str, imported: str) -> bool:
    if importer.split(".")[0] == imported.split(".")[0]:
        return True
    up, down = level(importer), level(imported)
    return up < down or up == down in (0, len(ROOMS) - 1)


def circle_arrows(graph: dict[str, frozenset[str]]) -> set[str]:
    """Return the arrows from which there is a way back to where they start."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            if (name := ahead.pop()) not in seen:
                seen.add(name)
                ahead += graph[name]
        return seen

    reach = {name: reached(name) for name in graph}
    return {f"{name} -> {to}" for name in graph for to in graph[name] if name in reach[to]}


def wrong_arrows() -> set[str]:
    return {
        f"{importer} -> {imported}"
        for importer, targets in arrows().items()
        for imported in targets
        if not is_allowed(importer, imported)
    }


def test_every_module_is_in_a_room() -> None:
    listed = {room for rooms in ROOMS for room in rooms}
    assert {name.split(".")[0] for name in modules()} == listed


def test_arrows_point_down_only() -> None:
    assert wrong_arrows() == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle_arrows(arrows()) == set()


def test_no_file_is_too_long_for_one_idea() -> None:
    long = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    }
    assert long == set()


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_each_suppression_has_its_reason(folder: Path) -> None:
    """Behind it, or in the comment above."""
    without = set()
    for path in folder.rglob("*.py"):
        if path == WRONG_USES:
            continue
        above = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = SUPPRESSION.search(line)
            if found and not (found["reason"] or above.strip().startswith("#")):
                without.add(f"{path.relative_to(folder)}:{number}")
            above = line
    assert without == set()


def test_one_name_means_one_thing() -> None:
    """A private name is known in its module only, so it may come again."""
    places = defaultdict(set)
    for name, module in modules().items():
        for node in module.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                places[node.name].add(name)
    twice = {
        f"{name} in {', '.join(sorted(where))}"
        for name, where in places.items()
        if len(where) > 1 and not name.startswith("_") and name not in ENTRY_POINTS
    }
    assert twice == set()
