"""The examples that stand in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: Path) -> list[tuple[int, str]]:
    """Return the Python examples of *page*, each with the line it stands at."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start()) + 1, match[1])
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    ]


def how_to(name: str, number: int = 0) -> str:
    """Return an example of the how-to page *name*."""
    return examples(ROOT / "docs" / "how-to" / f"{name}.md")[number][1]
