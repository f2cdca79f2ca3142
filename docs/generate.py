"""Write the parts of the documentation that the code knows best, and its pictures: `make docs`.

Each part stands between `<!-- name -->` and `<!-- /name -->` in a page. A test fails when a page is
not what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from drawings import PICTURES

from graceful_asgi import DrainPolicy
from graceful_asgi._asgi.precedence import OPTIONS
from graceful_asgi._core.drain import Begin, Drain, Event, Step, Stop, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md")))

_PART = re.compile(r"(<!-- ([\w./-]+) -->\n).*?(<!-- /\2 -->)", re.S)
_LANGUAGES = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".conf": "nginx",
    ".json": "json",
    ".py": "python",
    ".service": "ini",
    ".socket": "ini",
}
"""The language that a file is highlighted as; others are shown as text."""


EVENTS: dict[str, Event] = {
    "begin": Begin("a begin"),
    "stop": Stop("a stop"),
    "resume": Step.RESUME,
    "close": Step.CLOSE,
    "cancel": Step.CANCEL,
    "clean up": Step.CLEAN_UP,
    "finish": Step.FINISH,
}


def phases() -> str:
    """Return a table of what each event makes of each phase, by asking the drain itself."""
    lines = ["| phase | " + " | ".join(EVENTS) + " |", "| --- " * (len(EVENTS) + 1) + "|"]
    for drain in _one_in_each_phase():
        to = [step(drain, event, 0.0).phase for event in EVENTS.values()]
        cells = ["" if phase is drain.phase else phase.value for phase in to]
        lines.append(f"| **{drain.phase.value}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _one_in_each_phase() -> Iterator[Drain]:
    """Yield a drain in each phase, as a begin leads there."""
    drain = Drain(policy=DrainPolicy())
    yield drain
    for event in (Begin("a begin"), Step.CLOSE, Step.CANCEL, Step.CLEAN_UP, Step.FINISH):
        drain = step(drain, event, 0.0)
        yield drain


def options() -> str:
    """Return every option of the middleware: a table of all of them, and a section for each."""
    table = ["| option | default | what it does |", "| --- | --- | --- |"]
    sections = []
    for option in OPTIONS.values():
        first = re.split(r"(?<=\.) ", option.meaning)[0]
        default = _value(option.default)
        table.append(f"| [`{option.name}`](#{option.name}) | {default} | {first} |")
        sections += [
            f"## `{option.name}` {{ #{option.name} }}",
            option.meaning,
            f"| default | allowed | environment | command line of `run` |\n"
            f"| --- | --- | --- | --- |\n"
            f"| {default} | {option.kind.allowed} | `{option.variable}` | `{option.flag}` |",
        ]
    return "\n\n".join(["\n".join(table), *sections])


def _value(default: object) -> str:
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


PARTS: dict[str, Callable[[], str]] = {"phases": phases, "options": options}
"""Makes the text between two marks of a page, by the name of the marks."""


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
    language = "dockerfile" if path.name == "Dockerfile" else _LANGUAGES.get(path.suffix, "")
    return f"`{path.name}`:\n\n```{language}\n{text}```"


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
