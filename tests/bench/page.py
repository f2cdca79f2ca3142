"""The tables of docs/explanation/cost.md: where they stand, and the machine they were made on."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .servers import write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "cost.md"


def machine(*packages: str) -> str:
    """Return when and on what it was measured, with the versions of *packages*."""
    today = datetime.now(tz=timezone.utc).date()
    release = ".".join(platform.release().split(".")[:2])
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{today}; {os.cpu_count()} cores, {platform.system()} {release}, "
        f"Python {platform.python_version()}; {versions}."
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, named: int = 1) -> str:
    """Return a table of Markdown. The first *named* columns are names, the others numbers."""
    lines = [headings, ["---"] * named + ["---:"] * (len(headings) - named), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def put(name: str, *parts: str) -> None:
    """Write *parts* between the markers *name* of the page."""
    write("\n\n".join(parts), PAGE, name)
