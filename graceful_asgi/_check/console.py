"""A check on a console: a line for each run, the running total, and the closing table."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.live import Live
from rich.table import Table
from rich.text import Text

from .result.verdict import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from .load import LoadStatistics
    from .result.text import Cell, Section, Tone
    from .result.verdict import Target
    from .server.command import Command
    from .trial import Step, Watch

_TITLE_WIDTH: Final = 24
_ENOUGH: Final = 10
"""The requests at risk from which on a rate is shown. A rate of fewer would mean nothing."""

_STYLES: Final[dict[Tone, str]] = {"good": "green", "bad": "bold red", "plain": ""}


class ConsoleProgress:
    """A line for each run: rewritten in place on a terminal, else one for each step of it.

    `rounds` is 0 where their number is not known before.
    """

    def __init__(self, console: Console, *, rounds: int) -> None:
        self._console = console
        self._rounds = rounds

    @contextmanager
    def run(self, number: int, command: Command, what: str) -> Iterator[Watch]:
        """Show a run of `command` in round `number`; the block is the run."""
        prefix = "" if self._rounds == 1 else f"{number}/{self._rounds or '…'} "
        name = command.name if what == "load" else f"  {what}"
        title = f"{prefix}{name}"[:_TITLE_WIDTH]
        line = _Line(title)
        if not self._console.is_terminal:
            yield line.follow(self._console)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield lambda step, figures: live.update(line.text(step, figures), refresh=True)

    def total(self, number: int, targets: Sequence[Target]) -> None:
        """Print what all rounds up to this one have come to, where more than one is run."""
        if self._rounds == 1:
            return
        for target in targets:
            verdict = target.verdict
            text = Text(f"after {some(number, 'round')}: {target.command.name}: ")
            for count, what in (verdict.lost_total, "lost, "), (verdict.total.wrong_total, "wrong"):
                text.append(f"{count:,} {what}", "bold red" if count else "")
            text.append(f" of {verdict.at_risk:,} at risk")
            if verdict.missed_requests is not None and verdict.at_risk >= _ENOUGH:
                text.append(f" (95 %: fewer than 1 in {1 / verdict.missed_requests:,.0f} lost)")
            self._console.print(text)


class _Line:
    """The text of one run's line, with a rate that is measured between two looks."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._last = (self._began, 0)
        self._rate = 0.0

    def follow(self, console: Console) -> Watch:
        """Return what prints the line whenever the step has changed."""
        last: Step | None = None

        def watch(step: Step, figures: LoadStatistics) -> None:
            nonlocal last
            if step != last:
                last = step
                console.print(self.text(step, figures), no_wrap=True, overflow="ellipsis")

        return watch

    def text(self, step: Step, figures: LoadStatistics) -> Text:
        """Return the line as it is now."""
        self._measure(figures.sent)
        text = Text(f"{self._title:<{_TITLE_WIDTH}} ", no_wrap=True, overflow="ellipsis")
        text.append(f"{step:<13}", style="bold")
        text.append(f"{time.monotonic() - self._began:4.1f} s")
        # Faults first: in a narrow terminal the end of the line is cut off.
        if figures.lost:
            text.append(f" {figures.lost:4,} lost", style="bold red")
        if figures.wrong:
            text.append(f" {figures.wrong:4,} wrong", style="bold red")
        text.append(f" {figures.sent:8,} sent")
        if step in ("under load", "told to stop"):
            text.append(f" {self._rate:6,.0f}/s")
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
    """Return *cell* in the colour of its tone."""
    return Text(cell.text, _STYLES[cell.tone])
