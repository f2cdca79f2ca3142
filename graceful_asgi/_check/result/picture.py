"""The picture of a check: requests, faults and phases over time, two panels for each server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .timeline import SLICE
from .verdict import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .verdict import Target, Trial

# Blue, grey and red: they stay apart for readers who do not see colours, and in print.
_ANSWERED: Final = "#1f6fb2"
_IN_FLIGHT: Final = "#4a4a4a"
_FAULT: Final = "#c62828"
_GOOD: Final = "#2e7d32"
_INK: Final = "#2b2b2b"
_BANDS: Final = ("#eef2f6", "#dfe6ee")

_TEXT: Final[dict[str, Any]] = {"size": 9, "color": _INK}
_MARGIN: Final = 0.18
"""The part of the width that the name of the last exit needs at the right."""
_NARROW: Final = 0.14
"""The part of the width below which the name of a phase is written upwards."""


def draw(path: Path, targets: Sequence[Target], *, signal: str = "signal") -> None:
    """Draw the worst run of each server to `path`, in the format that its suffix names.

    Raises `OSError` when the file cannot be written.
    """
    picture(targets, signal=signal).savefig(path, dpi=150)


def picture(targets: Sequence[Target], *, signal: str = "signal") -> Figure:
    """Return the picture itself. All servers have the same scales, so that they can be compared."""
    trials = [worst(target.trials) for target in targets]
    figure = Figure(figsize=(10, 0.5 + 3.4 * len(trials)), layout="constrained")
    panels = figure.subplots(
        2 * len(trials),
        1,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [3.2, 1] * len(trials)},
    )[:, 0]
    samples = [sample for trial in trials for sample in trial.samples]
    highest = max((sample.answered / SLICE for sample in samples), default=1.0) or 1.0
    most_in_flight = max((sample.in_flight for sample in samples), default=1) or 1
    most_faults = max((sample.failed for sample in samples), default=1) or 1
    left = min((trial.samples[0].second for trial in trials if trial.samples), default=-1.0)
    right = max(trial.end.seconds for trial in trials)
    width = right - left
    for number, (target, trial) in enumerate(zip(targets, trials, strict=True)):
        requests, faults = panels[2 * number], panels[2 * number + 1]
        requests.set_xlim(left, right + _MARGIN * width)
        _draw_requests(requests, trial, highest, most_in_flight)
        _draw_faults(faults, trial, most_faults)
        _mark_phases(requests, trial, width)
        _mark_phases(faults, trial, None)
        _mark_ends(requests, trial)
        _mark_ends(faults, trial)
        _name_ends(requests, trial, signal)
        _title(requests, target, trial)
    panels[-1].set_xlabel(f"seconds after {signal}", **_TEXT)
    return figure


def worst(trials: Sequence[Trial]) -> Trial:
    """Return the one with the most faults; of several, the one that took longest to end."""

    def badness(trial: Trial) -> tuple[int, float]:
        total = trial.load.total
        return total.lost_total + total.wrong_total, trial.end.seconds

    return max(trials, key=badness)


def _draw_requests(axes: Axes, trial: Trial, highest: float, most_in_flight: int) -> None:
    seconds = [sample.second for sample in trial.samples]
    rates = [sample.answered / SLICE for sample in trial.samples]
    axes.fill_between(seconds, rates, step="post", color=_ANSWERED, alpha=0.25, linewidth=0)
    axes.step(seconds, rates, where="post", color=_ANSWERED, linewidth=1.2)
    axes.set_ylim(0, highest * 1.45)  # the names of the phases stand above
    axes.set_ylabel("right answers a second", size=9, color=_ANSWERED)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(axis="y", colors=_ANSWERED, labelsize=8)
    other = axes.twinx()
    in_flight = [sample.in_flight for sample in trial.samples]
    other.step(
        seconds, in_flight, where="post", color=_IN_FLIGHT, linewidth=1.0, linestyle=(0, (3, 1.5))
    )
    other.set_ylim(0, most_in_flight * 1.45)
    other.set_ylabel("in flight (dashed)", size=9, color=_IN_FLIGHT)
    other.tick_params(axis="y", colors=_IN_FLIGHT, labelsize=8)
    other.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for each in (axes, other):
        each.spines["top"].set_visible(False)


def _draw_faults(axes: Axes, trial: Trial, most: int) -> None:
    samples = [sample for sample in trial.samples if sample.failed]
    axes.bar(
        [sample.second for sample in samples],
        [sample.failed for sample in samples],
        width=SLICE,
        align="edge",
        color=_FAULT,
    )
    axes.set_ylim(0, most * 1.3)
    axes.set_ylabel("lost\nor wrong", size=9, color=_FAULT)
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.tick_params(axis="y", colors=_FAULT, labelsize=8)
    axes.tick_params(axis="x", labelsize=8)
    if not samples:
        axes.text(0.01, 0.5, "none", transform=axes.transAxes, va="center", size=9, color=_GOOD)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def phases(trial: Trial) -> Iterator[tuple[str, float, float]]:
    """Yield the phases from the signal to the exit: names, beginnings and ends in seconds.

    They are those that the server's log names. A server that names none has the two that every
    client can tell: it accepts connections, or refuses them.
    """
    gone = trial.end.seconds
    found = sorted((at, name) for name, at in trial.phases.items() if at < gone)
    if not found:
        refused = trial.first_refusal
        found = [(0.0, "accepts connections")]
        if refused is not None and refused < gone:
            found.append((max(refused, 0.0), "refuses connections"))
    ends = [at for at, _ in found[1:]] + [gone]
    for (began, name), ended in zip(found, ends, strict=True):
        yield name, max(began, 0.0), ended


def _mark_phases(axes: Axes, trial: Trial, width: float | None) -> None:
    """Shade the phases, one after the other in another tone; with `width`, name them."""
    for number, (name, began, ended) in enumerate(phases(trial)):
        axes.axvspan(began, ended, color=_BANDS[number % 2], linewidth=0, zorder=0)
        if number:
            axes.axvline(began, color=_INK, linewidth=0.6, zorder=1)
        if width is not None:
            is_narrow = (ended - began) / width < _NARROW
            axes.annotate(
                name,
                ((began + ended) / 2, 0.97),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                rotation=90 if is_narrow else 0,
                **{**_TEXT, "size": 8},
            )


def _mark_ends(axes: Axes, trial: Trial) -> None:
    """Draw a line at the signal, and one at the exit."""
    axes.axvline(0, color=_INK, linewidth=1.4)
    colour = _FAULT if trial.end.late else _INK
    axes.axvline(trial.end.seconds, color=colour, linewidth=1.4, linestyle="--")


def _name_ends(axes: Axes, trial: Trial, signal: str) -> None:
    """Label the two lines."""
    gone = trial.end.seconds
    end = f"killed at {gone:.1f} s" if trial.end.late else f"exit at {gone:.1f} s"
    for second, text, side, place in ((0.0, signal, "right", -4), (gone, end, "left", 4)):
        axes.annotate(
            text,
            (second, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(place, 0),
            textcoords="offset points",
            ha=side,
            va="top",
            weight="bold",
            **_TEXT,
        )


def _title(axes: Axes, target: Target, trial: Trial) -> None:
    total = trial.load.total
    name, runs = target.command.name, len(target.trials)
    which = f" (the worst of {runs} runs)" if runs > 1 else ""
    axes.set_title(f"{name}{which}", loc="left", size=11, color=_INK, weight="bold")
    faults = total.lost_total + total.wrong_total
    text = (
        f"{total.lost_total:,} lost, {total.wrong_total:,} wrong of {some(total.sent, 'request')}"
    )
    color = _FAULT if faults else _GOOD
    axes.set_title(text, loc="right", size=11, color=color, weight="bold")
