"""The site of the documentation, built as `make docs` builds it and read as a browser reads it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from support.docs import ROOT
from support.need import need

import graceful_asgi
from graceful_asgi import testing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(360)  # each process of pytest-xdist builds the site

ADDRESSES = {"a": "href", "link": "href", "script": "src", "img": "src", "iframe": "src"}
"""Elements that point to another file, and the attribute that does."""

LOADED = {"script", "img", "iframe", "link"}
"""Elements whose address a browser asks for by itself."""


@dataclass
class Page(HTMLParser):
    """The links of a page, and the places in it that a link can point to."""

    path: Path
    targets: list[tuple[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    titles: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names.update(filter(None, (given.get("id"), given.get("name"))))
        self.titles += tag == "h1"
        if target := given.get(ADDRESSES.get(tag, "")):
            self.targets.append((tag, target))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site in a copy of what it is made from, and return its folder."""
    need("zensical", "mkdocstrings")
    copy = tmp_path_factory.mktemp("copy")
    for name in ("docs", "graceful_asgi"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", copy)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(
        command,
        cwd=copy,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return copy / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    # The page for what is not found is served at any address, so its own links are absolute.
    found = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(found) > 15
    return found


def internal(page: Page) -> Iterator[tuple[str, Path, str]]:
    for _, target in page.targets:
        parts = urlsplit(target)
        if not parts.scheme and not parts.netloc:
            path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            yield target, path, unquote(parts.fragment)


def test_every_link_leads_to_a_file_and_to_a_place_in_it(
    site: Path, pages: dict[Path, Page]
) -> None:
    dead = [
        f"{page.path.relative_to(site)}: {target}"
        for page in pages.values()
        for target, path, fragment in internal(page)
        if not path.is_file() or (fragment and path in pages and fragment not in pages[path].names)
    ]
    assert dead == []


def test_every_page_of_the_source_is_in_the_site_and_has_one_title(
    site: Path, pages: dict[Path, Page]
) -> None:
    sources = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.relative_to(site).with_suffix(".md") for path in pages} == sources
    assert {page.titles for page in pages.values()} == {1}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"- (?:[\w ]+: )?([\w/-]+\.md)$", navigation, re.M)
    sources = (path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
    assert sorted(listed) == sorted(map(str, sources))


def test_a_page_is_shown_without_a_request_to_another_host(pages: dict[Path, Page]) -> None:
    asked = {
        target
        for page in pages.values()
        for tag, target in page.targets
        if tag in LOADED and urlsplit(target).netloc
    }
    assert asked == set()


def test_every_public_name_is_in_the_reference_with_its_fields(pages: dict[Path, Page]) -> None:
    (reference,) = (page for path, page in pages.items() if path.name == "api.html")
    (options,) = (page for path, page in pages.items() if path.name == "options.html")
    for name in graceful_asgi.__all__:
        thing = getattr(graceful_asgi, name)
        if name[0] != "_":
            assert f"graceful_asgi.{name}" in reference.names
        if dataclasses.is_dataclass(thing):
            for each in dataclasses.fields(thing):
                anchor = f"graceful_asgi.{name}.{each.name}"
                assert anchor in reference.names or each.name in options.names, anchor
    for name in testing.__all__:
        if name not in ("server_process", "threaded_server"):  # fixtures: a how-to page has them
            assert f"graceful_asgi.testing.{name}" in reference.names


def test_the_search_knows_the_pages(site: Path) -> None:
    """The index is a script, which a page that was opened from a disk may load."""
    index = (site / "search.js").read_text(encoding="utf-8")
    assert "grace_period" in index
    assert "drain_notice" in index
