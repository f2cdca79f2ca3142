"""Processes and their drains on a console: a table and bars on a terminal, else plain lines."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from .._control.selection import label, servers_of
from ..report import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from .._control.client import Answer, Heard
    from .._control.directory import SocketName

_COLUMNS: Final = ("server", "process", "phase", "in flight", "oldest request", "seconds left")

_STYLES: Final = {"serving": "green", "lame duck": "yellow", "draining": "yellow"}


def table(answers: Sequence[Answer]) -> Table:
    """Return a row for each process."""
    shown = Table()
    for name in _COLUMNS:
        shown.add_column(name, overflow="fold", justify="right" if name == "in flight" else "left")
    for answer in answers:
        cells = row(answer, answers)
        style = _STYLES.get(cells[2].partition(",")[0], "bold red")
        shown.add_row(*(Text(cell, style if at == 2 else "") for at, cell in enumerate(cells)))
    return shown


def lines(answers: Sequence[Answer]) -> list[str]:
    """Return a line for each process, for a log."""
    found = []
    for answer in answers:
        server, pid, phase, in_flight, oldest, left = row(answer, answers)
        parts = [f"server {server}", f"process {pid}: {phase}"]
        parts += [f"{in_flight} in flight"] if in_flight else []
        parts += [f"oldest {oldest}"] if oldest else []
        parts += [left if not left[:1].isdigit() else f"{left} s left"] if left else []
        found.append(", ".join(parts))
    return found


def row(answer: Answer, among: Sequence[Answer]) -> tuple[str, ...]:
    """Return the cells of one process."""
    servers = servers_of([each.name for each in among])
    named = label(answer.name.server, servers), str(answer.name.pid)
    process = answer.process
    if answer.state != "answered":
        return (*named, answer.error, "", "", "")
    phase = f"{_text(process, 'phase')}{', drained' if process.get('drained') else ''}"
    return (*named, phase, _text(process, "in_flight"), _oldest(process), _left(process))


def _text(fields: dict[str, Any], name: str) -> str:
    return printable(str(fields.get(name, "")))


def _oldest(process: dict[str, Any]) -> str:
    oldest = process.get("oldest")
    if not isinstance(oldest, dict):
        return ""
    name = " ".join(filter(None, (_text(oldest, "method") or "", _text(oldest, "path")[:60])))
    return f"{name or _text(oldest, 'kind')} {seconds(oldest.get('age'))} s"


def _left(process: dict[str, Any]) -> str:
    if (undone := seconds(process.get("undone_in"))) and process.get("drained"):
        return f"undone in {undone} s"
    if process.get("drained") and not process.get("stopping"):
        return "until a stop"
    if process.get("gives_up_in") == 0:
        return "past the grace period"
    return seconds(process.get("time_left")) or seconds(process.get("gives_up_in"))


def seconds(value: object) -> str:
    """Return a number of seconds as text; empty for none."""
    return f"{value:.1f}" if isinstance(value, (int, float)) else ""


@contextmanager
def progress(console: Console, names: Sequence[SocketName]) -> Iterator[Heard]:
    """Show how the drains of *names* go on; give what is to hear of it."""
    if not console.is_terminal:
        yield _Log(console).hear
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=console) as bars:
        tasks = {
            name: bars.add_task(f"process {name.pid}", total=None, state="asked") for name in names
        }
        yield lambda answer: _move(bars, tasks[answer.name], answer)


def _move(bars: Progress, task: TaskID, answer: Answer) -> None:
    elapsed, left = (answer.process.get(name) for name in ("elapsed", "gives_up_in"))
    total = elapsed + left if isinstance(elapsed, float) and isinstance(left, float) else None
    over = bool(answer.outcome) or answer.state != "answered"
    bars.update(
        task,
        total=1.0 if over else total,
        completed=1.0 if over else elapsed or 0.0,
        state=Text(state_of(answer)).markup,
    )


class _Log:
    """A line when a drain begins, and one when it has come out; what lies between is no news."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: set[SocketName] = set()

    def hear(self, answer: Answer) -> None:
        over = bool(answer.outcome) or answer.state != "answered"
        if over or answer.name not in self._begun:
            self._begun.add(answer.name)
            text = f"process {answer.name.pid}: {state_of(answer)}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def state_of(answer: Answer) -> str:
    """Return how one drain stands, in words."""
    if answer.state != "answered":
        return answer.error
    in_flight = f"{_text(answer.process, 'in_flight')} in flight"
    if answer.outcome == "clean":
        return "drained"
    if answer.outcome:
        return f"{printable(answer.outcome)}, {in_flight}"
    if answer.reply is not None and answer.reply.fields.get("began") is False:
        return f"draining already, {in_flight}"
    return f"{_text(answer.process, 'phase')}, {in_flight}"
