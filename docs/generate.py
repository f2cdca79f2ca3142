"""Write the parts of the documentation that the code knows best, and its pictures: `make docs`.

Each part stands between `<!-- name -->` and `<!-- /name -->` in a page. A test fails when a page is
not what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from drawings import PICTURES

from graceful_asgi.phase import TRANSITIONS, Event, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md")))

_PART = re.compile(r"(<!-- ([\w./-]+) -->\n).*?(<!-- /\2 -->)", re.S)
_LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".conf": "nginx", ".json": "json", ".py": "python"}


def phases() -> str:
    """Return the transition table as a table: phase by event."""
    events = list(Event)
    lines = [
        "| | " + " | ".join(event.value for event in events) + " |",
        "| --- " * (len(events) + 1) + "|",
    ]
    for phase in Phase:
        to = [TRANSITIONS.get((phase, event)) for event in events]
        cells = ["" if phase is None else phase.value for phase in to]
        lines.append(f"| **{phase.value}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {"phases": phases}
"""What can stand between the marks of a page, by the marks' name."""


def generated() -> dict[Path, str]:
    """Return what each page and each picture should hold."""
    pages = {path: path.read_text(encoding="utf-8") for path in PAGES}
    written = {path: _PART.sub(_part, text) for path, text in pages.items()}
    return written | {DOCS / "assets" / name: draw() for name, draw in PICTURES.items()}


def _part(found: re.Match[str]) -> str:
    opening, name, closing = found.groups()
    if name.startswith("manifests/"):
        return f"{opening}{_file(DOCS / 'how-to' / name)}\n{closing}"
    if name in PARTS:
        return f"{opening}{PARTS[name]()}\n{closing}"
    return found[0]  # written by something else, such as `make bench`


def _file(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return f"`{path.name}`:\n\n```{_LANGUAGES.get(path.suffix, '')}\n{text}```"


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
