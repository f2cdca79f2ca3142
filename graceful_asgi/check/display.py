"""The demo on a console: live progress, the closing table. Words and figures come from outside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self

    from graceful_asgi.check.load import LoadStatistics
    from graceful_asgi.check.summary import Row
    from graceful_asgi.check.trial import Stage


class TrialProgress:
    """A line that follows one trial: rewritten in place on a terminal, else one per stage."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._console = console
        self._title = title
        self._stage: Stage | None = None
        self._began = time.monotonic()
        self._last = (self._began, 0)
        self._rate = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def watch(self, stage: Stage, statistics: LoadStatistics) -> None:
        """Show this instant; what `run_trial` wants as its ``watch``."""
        self._measure(statistics.sent)
        text = self._line(stage, statistics)
        if self._live is not None:
            self._live.update(text, refresh=True)
        elif stage != self._stage:
            self._console.print(text)
        self._stage = stage

    def _measure(self, sent: int) -> None:
        now = time.monotonic()
        then, before = self._last
        if now - then >= 0.25:
            self._rate = (sent - before) / (now - then)
            self._last = (now, sent)

    def _line(self, stage: Stage, statistics: LoadStatistics) -> Text:
        text = Text(f"{self._title:<20} ", no_wrap=True)
        text.append(f"{stage:<12}", style="bold yellow" if stage == "told to stop" else "bold")
        text.append(f"{time.monotonic() - self._began:5.1f} s")
        if stage in ("under load", "told to stop") and statistics.sent:
            text.append(f"{self._rate:7,.0f}/s {statistics.in_flight:4} in flight")
        text.append(f"{statistics.sent:8,} sent")
        if statistics.lost:
            text.append(f" {statistics.lost:5,} lost", style="bold red")
        if statistics.refused:
            text.append(f" {statistics.refused:5,} refused")
        return text


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Print one row per figure and one column per server; a loss stands out in red."""
    table = Table()
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for label, cells in rows:
        style = "bold" if label == "lost" else None
        table.add_row(Text(label), *(_cell(label, cell) for cell in cells), style=style)
    console.print(table)


def _cell(label: str, cell: str) -> Text:
    if label == "lost" or cell.startswith("lost:"):
        return Text(cell, style="green" if cell == "0" else "red")
    return Text(cell)
