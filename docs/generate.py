"""Writes the parts of the documentation that the code knows best: `make docs`.

Each part stands between `<!-- name -->` and `<!-- /name -->` in a page. A test fails when a page is
not what this writes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import graceful_asgi
from graceful_asgi._cli.meanings import meanings
from graceful_asgi.phase import TRANSITIONS, Event, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent

_MANIFEST = re.compile(r"(<!-- (manifests/[\w.-]+) -->\n).*?(<!-- /\2 -->)", re.S)


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


def api() -> str:
    """Return every public name with its signature and docstrings."""
    return "\n\n".join("\n\n".join(_describe(name)) for name in graceful_asgi.__all__)


def _describe(name: str) -> Iterator[str]:
    thing = getattr(graceful_asgi, name)
    yield f"## {name}"
    if not isinstance(thing, type):
        yield f"```\n{name}{_signature(thing)}\n```"
        yield _docstring(thing)
        return
    if not issubclass(thing, Phase):
        yield f"```\n{name}{_signature(thing.__init__)}\n```"
    yield _docstring(thing)
    if issubclass(thing, Phase):
        yield "\n".join(f"- `{member.name}`: {member.value}" for member in thing)
    if dataclasses.is_dataclass(thing):
        yield "\n".join(_fields(thing))
    for base in reversed(thing.__mro__[:-1]):
        for member_name, member in vars(base).items():
            if not member_name.startswith("_") and _is_described(base, member):
                yield from _member(name, member_name, member)


def _is_described(base: type, member: object) -> bool:
    callable_here = inspect.isfunction(member) or isinstance(member, (property, classmethod))
    internal = re.search(r"For (edges|the middleware)\.", inspect.getdoc(member) or "")
    return callable_here and internal is None and not issubclass(base, Phase)


def _member(owner: str, name: str, member: object) -> Iterator[str]:
    if isinstance(member, property):
        yield f"### {owner}.{name}"
        yield _docstring(member)
        return
    function = member.__func__ if isinstance(member, classmethod) else member
    assert inspect.isfunction(function)
    is_async = "await " if inspect.iscoroutinefunction(function) else ""
    yield f"### {owner}.{name}"
    yield f"```\n{is_async}{name}{_signature(function)}\n```"
    yield _docstring(function)


def _signature(function: object) -> str:
    """Return the signature without `self` and the quotes around postponed annotations."""
    assert callable(function)
    text = str(inspect.signature(function)).replace(" -> 'None'", "")
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # postponed annotations are strings
    return re.sub(r"^\((self|cls)(, )?", "(", text)


def _fields(thing: type) -> Iterator[str]:
    """Yield a line per field; what it means is the string below it in the source."""
    known = meanings(thing)
    for field in dataclasses.fields(thing):
        meaning = known.get(field.name, "")
        yield f"- `{field.name}: {field.type}`" + (f": {meaning}" if meaning else "")


def _docstring(thing: object) -> str:
    text = inspect.getdoc(thing) or ""
    # The sections of a docstring, as Markdown.
    text = re.sub(r"^(Args|Returns|Raises|Attributes):$", r"**\1**\n", text, flags=re.M)
    text = re.sub(r"^    (\w+): ", r"- `\1`: ", text, flags=re.M)
    return re.sub(r"^ {4,}", "", text, flags=re.M)


def generated() -> dict[Path, str]:
    """Return what each page should hold."""
    pages: dict[Path, str] = {}
    for path, name, text in (
        (DOCS / "explanation" / "drain.md", "phases", phases()),
        (DOCS / "reference" / "api.md", "api", api()),
    ):
        page = path.read_text(encoding="utf-8")
        part = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        pages[path] = part.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)  # type: ignore[misc]
    for path in sorted((DOCS / "how-to").glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if _MANIFEST.search(page):
            pages[path] = _MANIFEST.sub(_include, page)
    return pages


def _include(found: re.Match[str]) -> str:
    """Return a file's text between its marks."""
    path = DOCS / "how-to" / found[2]
    language = {".yaml": "yaml", ".conf": "nginx"}.get(path.suffix, "")
    text = path.read_text(encoding="utf-8")
    return f"{found[1]}`{path.name}`:\n\n```{language}\n{text}```\n{found[3]}"


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
