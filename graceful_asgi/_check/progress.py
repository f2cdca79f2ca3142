"""A check on a console: live progress, the closing table. Words and figures come from outside."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from .load.run import LoadStatistics
    from .result.text import Cell, Section, Tone
    from .server.command import Command
    from .trial import Step, Watch

_TITLE_WIDTH: Final = 24

_STYLES: Final[dict[Tone, str]] = {"good": "green", "bad": "bold red", "plain": ""}


class ConsoleProgress:
    """A line for each run: rewritten in place on a terminal, else one for each step of it."""

    def __init__(self, console: Console, *, rounds: int) -> None:
        self._console = console
        self._rounds = rounds

    @contextmanager
    def run(self, number: int, command: Command, what: str) -> Iterator[Watch]:
        """A run of `command` in round `number`."""
        prefix = f"{number}/{self._rounds} " if self._rounds > 1 else ""
        name = command.name if what == "load" else f"  {what}"
        title = f"{prefix}{name}"[:_TITLE_WIDTH]
        line = _Line(title)
        if not self._console.is_terminal:
            yield line.follow(self._console)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield lambda step, figures: live.update(line.text(step, figures), refresh=True)


class _Line:
    """The text of one run's line, with a rate that is measured between two looks."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._last = (self._began, 0)
        self._rate = 0.0

    def follow(self, console: Console) -> Watch:
        """Print the line whenever the step has changed."""
        last: Step | None = None

        def watch(step: Step, figures: LoadStatistics) -> None:
            nonlocal last
            if step != last:
                last = step
                console.print(self.text(step, figures))

        return watch

    def text(self, step: Step, figures: LoadStatistics) -> Text:
        """The line as it is now."""
        self._measure(figures.sent)
        text = Text(f"{self._title:<{_TITLE_WIDTH}} ", no_wrap=True, overflow="ellipsis")
        text.append(f"{step:<12}", style="bold yellow" if step == "told to stop" else "bold")
        text.append(f"{time.monotonic() - self._began:4.1f} s")
        text.append(f" {figures.sent:8,} sent")
        if step in ("under load", "told to stop"):
            text.append(f" {self._rate:6,.0f}/s")
        if figures.lost:
            text.append(f" {figures.lost:4,} lost", style="bold red")
        if figures.refused and step == "exited":
            text.append(f" {figures.refused:,} refused")
        return text

    def _measure(self, sent: int) -> None:
        now = time.monotonic()
        then, before = self._last
        if now - then >= 0.25:
            self._rate = (sent - before) / (now - then)
            self._last = (now, sent)


def print_table(console: Console, names: Sequence[str], sections: Sequence[Section]) -> None:
    """Print a row for each figure and a column for each server; a loss stands out in red."""
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
    """A cell in the colour of its news."""
    return Text(cell.text, _STYLES[cell.tone])
