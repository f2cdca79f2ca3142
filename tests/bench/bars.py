"""A plot of horizontal bars in SVG, on paper of its own: readable on light and dark pages."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH, NAMES, NUMBERS = 720, 260, 70
ROW, GAP = 22, 34
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
PAPER, INK, OURS, OTHERS = "#fbfbf9", "#1f2933", "#00796b", "#9aa5b1"


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return the plot. The first bar of each group stands out: it is ours."""
    most = max(max(group.values()) for group in groups.values())
    scale = (WIDTH - NAMES - NUMBERS) / most
    parts, y = [_text(16, 28, title, size=16)], 44
    for heading, group in groups.items():
        parts.append(_text(16, y + 20, heading))
        y += GAP
        for number, (name, value) in enumerate(group.items()):
            fill = OTHERS if number else OURS
            width = max(1.0, value * scale)
            parts += (
                _text(NAMES - 10, y + 14, name, anchor="end"),
                f'<rect x="{NAMES}" y="{y + 2}" width="{width:.1f}" height="{ROW - 6}" '
                f'fill="{fill}"/>',
                _text(NAMES + width + 6, y + 14, f"{value:.1f}"),
            )
            y += ROW
        y += 8
    height = y + 8
    described = "; ".join(
        f"{heading}: " + ", ".join(f"{name} {value:.1f}" for name, value in group.items())
        for heading, group in groups.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" style="{FONT}">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(described)}</desc>\n"
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, size: int = 13, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" fill="{INK}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
