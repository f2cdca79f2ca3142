"""The picture of a check: requests, losses and phases over time, one row for each server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .timeline import SLICE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .target import Target
    from .verdict import Trial

_SERVED: Final = "#2a78b8"
_IN_FLIGHT: Final = "#e08a1e"
_LOST: Final = "#c62828"
_INK: Final = "#2b2b2b"
_ACCEPTING: Final = "#fff3d6"
_CLOSED: Final = "#ebebeb"

_STYLE: Final[dict[str, Any]] = {
    "size": 9,
    "color": _INK,
}


def draw(path: Path, targets: Sequence[Target]) -> None:
    """Draw the worst run of each server to `path`, in the format that its suffix names.

    Raises `OSError` when the file cannot be written.
    """
    picture(targets).savefig(path, dpi=150)


def picture(targets: Sequence[Target]) -> Figure:
    """The picture itself: for each server a panel of requests, and under it one of losses."""
    trials = [worst(target.trials) for target in targets]
    figure = Figure(figsize=(9, 0.6 + 3.0 * len(trials)), layout="constrained")
    panels = figure.subplots(
        2 * len(trials),
        1,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [3.2, 1] * len(trials)},
    )[:, 0]
    highest = max(max(_rates(trial), default=0.0) for trial in trials)
    for number, (target, trial) in enumerate(zip(targets, trials, strict=True)):
        requests, losses = panels[2 * number], panels[2 * number + 1]
        _draw_requests(requests, trial, highest * 1.25 or 1.0)
        _draw_losses(losses, trial)
        _title(requests, target, trial)
    left = min((trial.samples[0].second for trial in trials if trial.samples), default=-1.0)
    right = max(trial.end.seconds for trial in trials)
    panels[-1].set_xlim(left, right + 0.12 * (right - left))
    figure.legend(
        handles=[Patch(color=_ACCEPTING), Patch(color=_CLOSED)],
        labels=["told to stop, nobody refused yet", "refuses connections"],
        loc="outside lower right",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    panels[-1].set_xlabel("seconds from the signal", **_STYLE)
    return figure


def worst(trials: Sequence[Trial]) -> Trial:
    """The one with the most losses; of several such, the one that took longest to end."""
    return max(trials, key=lambda trial: (trial.load.total.lost_total, trial.end.seconds))


def _draw_requests(axes: Axes, trial: Trial, highest: float) -> None:
    samples = trial.samples
    seconds = [sample.second for sample in samples]
    axes.fill_between(seconds, _rates(trial), step="post", color=_SERVED, alpha=0.25, linewidth=0)
    axes.step(seconds, _rates(trial), where="post", color=_SERVED, linewidth=1.2)
    axes.set_ylim(0, highest)
    axes.set_ylabel("answered / s", size=9, color=_SERVED)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(axis="y", colors=_SERVED, labelsize=8)
    other = axes.twinx()
    in_flight = [sample.in_flight for sample in samples]
    other.step(seconds, in_flight, where="post", color=_IN_FLIGHT, linewidth=1.0)
    other.set_ylim(0, max([*in_flight, 1]) * 1.9)
    other.set_ylabel("in flight", size=9, color=_IN_FLIGHT)
    other.tick_params(axis="y", colors=_IN_FLIGHT, labelsize=8)
    other.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _mark_phases(axes, trial, named=True)
    for each in (axes, other):
        each.spines["top"].set_visible(False)


def _draw_losses(axes: Axes, trial: Trial) -> None:
    samples = [sample for sample in trial.samples if sample.failed]
    most = max((sample.failed for sample in samples), default=1)
    axes.bar(
        [sample.second for sample in samples],
        [sample.failed for sample in samples],
        width=SLICE,
        align="edge",
        color=_LOST,
    )
    axes.set_ylim(0, most * 1.5)
    axes.set_ylabel("lost", size=9, color=_LOST)
    axes.yaxis.set_major_locator(MaxNLocator(2 if samples else 1, integer=True))
    axes.tick_params(axis="y", colors=_LOST, labelsize=8)
    axes.tick_params(axis="x", labelsize=8)
    _mark_phases(axes, trial, named=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mark_phases(axes: Axes, trial: Trial, *, named: bool) -> None:
    """Shade what a client can tell: still accepting, accepting no more; mark signal and exit."""
    gone = trial.end.seconds
    refused = trial.first_refusal
    closed = gone if refused is None else min(max(refused, 0.0), gone)
    axes.axvspan(0, closed, color=_ACCEPTING, linewidth=0, zorder=0)
    axes.axvspan(closed, gone, color=_CLOSED, linewidth=0, zorder=0)
    axes.axvline(0, color=_INK, linewidth=1.4)
    axes.axvline(gone, color=_INK, linewidth=1.4, linestyle="--")
    if named:
        end = "deadline" if trial.end.late else f"exit {gone:.1f} s"
        for second, text, to in ((0.0, "signal", "right"), (gone, end, "left")):
            place = -4 if to == "right" else 4
            axes.annotate(
                text,
                (second, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(place, -4),
                textcoords="offset points",
                ha=to,
                va="top",
                **_STYLE,
            )


def _title(axes: Axes, target: Target, trial: Trial) -> None:
    lost = trial.load.total.lost_total
    name, rounds = target.command.name, len(target.trials)
    which = f" (the worst of {rounds} runs)" if rounds > 1 else ""
    axes.set_title(f"{name}{which}", loc="left", size=11, color=_INK, weight="bold")
    text = f"{lost:,} of {trial.load.total.sent:,} requests lost"
    axes.set_title(text, loc="right", size=11, color=_LOST if lost else "#2e7d32", weight="bold")


def _rates(trial: Trial) -> list[float]:
    return [sample.answered / SLICE for sample in trial.samples]
