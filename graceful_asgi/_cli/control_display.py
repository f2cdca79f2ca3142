"""Shows processes and their drains: a table and bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from .._control.directory import label, servers_of
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from .._control.client import Answer, OnAnswer
    from .._control.directory import SocketName

_COLUMNS: Final = ("server", "process", "state", "in flight", "oldest request", "time")

_STYLES: Final = {"serving": "green", "lame duck": "yellow", "drained": "yellow"}


def status_table(answers: Sequence[Answer]) -> Table:
    """Return a row for each process."""
    shown = Table()
    for name in _COLUMNS:
        shown.add_column(name, overflow="fold", justify="right" if name == "in flight" else "left")
    for answer in answers:
        cells = status_cells(answer, answers)
        style = _STYLES.get(cells[2], "bold red")
        shown.add_row(*(Text(cell, style if at == 2 else "") for at, cell in enumerate(cells)))
    return shown


def status_lines(answers: Sequence[Answer]) -> list[str]:
    """Return a line for each process, for a log."""
    found = []
    for answer in answers:
        server, pid, state, in_flight, oldest, time = status_cells(answer, answers)
        parts = [f"server {server}", f"process {pid}: {state}"]
        parts += [f"{in_flight} in flight"] if in_flight else []
        parts += [f"oldest: {oldest}"] if oldest else []
        parts += [time] if time else []
        found.append(", ".join(parts))
    return found


def status_cells(answer: Answer, among: Sequence[Answer]) -> tuple[str, ...]:
    """Return the cells of one process, in the order of the columns."""
    servers = servers_of([each.name for each in among])
    named = label(answer.name.server, servers), str(answer.name.pid)
    process = answer.process
    if answer.state != "answered":
        return (*named, answer.error, "", "", "")
    in_flight = "" if process.get("drained") else _text(process, "in_flight")
    return (*named, _state(process), in_flight, _oldest(process), _time(process))


def _state(process: dict[str, Any]) -> str:
    phase = _text(process, "phase")
    if process.get("stopping"):
        return f"stopping ({phase})"
    return "drained" if process.get("drained") else phase


def _text(fields: dict[str, Any], name: str) -> str:
    return printable(str(fields.get(name, "")))


def _oldest(process: dict[str, Any]) -> str:
    oldest = process.get("oldest")
    if not isinstance(oldest, dict):
        return ""
    name = " ".join(filter(None, (_text(oldest, "method"), _text(oldest, "path")[:60])))
    return f"{name or _text(oldest, 'kind')} for {_seconds(oldest.get('age'))} s"


def _time(process: dict[str, Any]) -> str:
    """Return how long the state lasts, and what comes then."""
    left = _seconds(process.get("time_left"))
    if process.get("stopping"):
        cancels = process.get("phase") in ("lame duck", "draining")
        then = "until work is cancelled" if cancels else "left"
        return f"{left} s {then}" if left else ""
    if process.get("drained"):
        undone = _seconds(process.get("undone_in"))
        return f"undone in {undone} s without a stop" if undone else "waiting for a stop"
    if process.get("gives_up_in") == 0:
        return "past the grace period"
    gives_up = _seconds(process.get("gives_up_in"))
    return f"{gives_up} s until it counts as forced" if gives_up else ""


def _seconds(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) else ""


def write_line(text: str) -> None:
    """Write a line to standard output, or to nowhere from the first line on that cannot be written.

    For commands whose exit code tells what became of the processes: a full disk, or a pipe that
    nobody reads any more, must not end the command before that is known.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        # Python writes what is left in its buffer when it ends, and exits with 120 if it cannot.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def show_progress(console: Console, names: Sequence[SocketName]) -> Iterator[OnAnswer]:
    """Show how the drains of *names* go on; give the function to call with each answer."""
    if not console.is_terminal:
        begun: set[SocketName] = set()

        def write(answer: Answer) -> None:
            """Write a line when a drain begins, and one for its outcome."""
            if _is_over(answer) or answer.name not in begun:
                begun.add(answer.name)
                write_line(f"process {answer.name.pid}: {drain_text(answer)}")

        yield write
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
    over = _is_over(answer)
    bars.update(
        task,
        total=1.0 if over else total,
        completed=1.0 if over else elapsed or 0.0,
        state=Text(drain_text(answer)).markup,
    )


def _is_over(answer: Answer) -> bool:
    return bool(answer.outcome) or answer.state != "answered"


def drain_text(answer: Answer) -> str:
    """Return the state of one drain, or its outcome, in words."""
    if answer.state != "answered":
        return answer.error
    count = _text(answer.process, "in_flight")
    match answer.outcome:
        case "clean":
            return "drained"
        case "forced":
            return f"not drained in time, {count} still in flight"
        case "resumed":
            return f"resumed by somebody else, {count} in flight"
    if answer.fields.get("began") is False:
        return f"was draining already, {count} in flight"
    return f"draining, {count} in flight"
