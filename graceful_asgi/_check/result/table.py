"""The closing table of a check on a console. Words and figures come from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .text import Cell, Section, Tone

_STYLES: Final[dict[Tone, str]] = {"good": "green", "bad": "bold red", "plain": ""}


def print_table(console: Console, names: Sequence[str], sections: Sequence[Section]) -> None:
    """Print a row for each figure and a column for each server; a fault stands out in red."""
    table = Table()
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for section in sections:
        for row in section:
            table.add_row(Text(row.label, "bold" if row.strong else ""), *map(styled, row.cells))
        table.add_section()
    console.print(table)


def styled(cell: Cell) -> Text:
    """Return a cell in the colour of its news."""
    return Text(cell.text, _STYLES[cell.tone])
