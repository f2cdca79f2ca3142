"""The picture shows what was counted: a panel of requests and one of losses for each server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib.container import BarContainer

from check.result.test_verdict import trial
from graceful_asgi._check.result.counts import Counts
from graceful_asgi._check.result.picture import draw, phases, picture, worst
from graceful_asgi._check.result.timeline import Sample
from graceful_asgi._check.result.verdict import Target
from graceful_asgi._check.server.command import Command

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = (
    Sample(second=-0.1, answered=40, failed=0, in_flight=3),
    Sample(second=0.0, answered=10, failed=2, in_flight=1),
    Sample(second=0.1, answered=1, failed=1, in_flight=0),
)
GOOD = replace(trial(seconds=2.0), samples=SAMPLES, first_refusal=0.5)
BAD = replace(trial(after=Counts(lost={"cut body": 3})), samples=SAMPLES)
WRONG = replace(trial(after=Counts(wrong={"empty body": 4})), samples=SAMPLES)
LATE = replace(trial(late=True, seconds=30.0), samples=SAMPLES)


def target(*trials: Any) -> Target:
    return Target(Command(("serve",), "main:app"), trials=list(trials))


def test_the_worst_run_is_the_one_with_the_most_faults_then_the_longest() -> None:
    assert worst([GOOD, BAD, GOOD]) is BAD
    assert worst([GOOD, WRONG, BAD]) is WRONG
    assert worst([GOOD, LATE, GOOD]) is LATE


def test_there_are_two_panels_for_each_server_and_they_share_their_scales() -> None:
    figure = picture([target(GOOD), target(GOOD, BAD)])
    requests, faults, others, other_faults, in_flight, other_in_flight = figure.axes
    assert requests.get_xlim() == faults.get_xlim() == others.get_xlim()
    assert requests.get_ylim() == others.get_ylim()
    assert faults.get_ylim() == other_faults.get_ylim()
    assert in_flight.get_ylim() == other_in_flight.get_ylim()
    assert requests.get_title("left") == "main:app"
    assert requests.get_title("right") == "0 lost, 0 wrong of 17 requests"
    assert others.get_title("left") == "main:app (the worst of 2 runs)"
    assert others.get_title("right") == "3 lost, 0 wrong of 15 requests"
    [bars] = other_faults.containers
    assert isinstance(bars, BarContainer)
    assert [bar.get_height() for bar in bars.patches] == [2, 1]


def named(trial: object) -> list[str]:
    return [text.get_text() for text in picture([target(trial)], signal="SIGTERM").axes[0].texts]


def test_the_phases_are_those_that_the_log_names() -> None:
    drain = replace(GOOD, phases={"draining": 0.7, "lame duck": 0.01, "cleanup": 1.5})
    assert list(phases(drain)) == [
        ("lame duck", 0.01, 0.7),
        ("draining", 0.7, 1.5),
        ("cleanup", 1.5, 2.0),
    ]
    assert named(drain)[:3] == ["lame duck", "draining", "cleanup"]


def test_a_server_that_names_none_accepts_connections_or_refuses_them() -> None:
    assert list(phases(GOOD)) == [
        ("accepts connections", 0.0, 0.5),
        ("refuses connections", 0.5, 2.0),
    ]
    assert list(phases(LATE)) == [("accepts connections", 0.0, 30.0)]


@pytest.mark.parametrize(
    ("end", "said"),
    [(GOOD, "exit at 2.0 s"), (LATE, "killed at 30.0 s"), (trial(), "exit at 1.0 s")],
)
def test_signal_and_exit_are_marked(end: object, said: str) -> None:
    assert named(end)[-2:] == ["SIGTERM", said]


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_the_suffix_names_the_format(tmp_path: Path, name: str, magic: bytes) -> None:
    draw(tmp_path / name, [target(GOOD)])
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_picture_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        draw(tmp_path / "missing" / "a.png", [target(GOOD)])
