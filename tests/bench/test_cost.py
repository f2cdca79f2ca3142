"""The benches of docs/explanation/cost.md run, in small. Their numbers are not judged here."""

from __future__ import annotations

import shutil
import sys
from xml.etree import ElementTree

import pytest

from . import exits, memory, throughput
from .bars import bars
from .throughput import Line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they read /proc")


def test_a_stop_is_measured_and_put_into_a_table() -> None:
    seen = exits.measure("`GracefulMiddleware`", "asyncio")
    assert seen.codes == (0, 0)
    assert 0 < seen.idle < 10
    assert 0 < seen.busy < 10
    text = exits.table({("`GracefulMiddleware`", "asyncio"): [seen, seen]})
    assert text.splitlines()[2].startswith("| `GracefulMiddleware` | asyncio | ")
    assert text.endswith(" | 0 |")


def test_memory_is_measured() -> None:
    """A request in flight keeps a connection and a task at least."""
    growth = memory.measure("`GracefulMiddleware`", "a request in flight", 100)
    assert 2_000 < growth.held < 100_000
    assert growth.kept < growth.held / 2


def test_the_throughput_is_measured() -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    (line,) = throughput.compare("FastAPI", ["graceful"], (4,), 1, 1)
    assert line.rates[0] > 0
    assert line.cost != 0


def test_the_table_of_the_throughput_names_connections_and_middlewares() -> None:
    line = Line("Starlette", "cors", (0.975, 1.0), 3.25)
    head, _, row = throughput.table([line], (1, 16)).splitlines()
    assert head == ("| framework | middleware | 1 connection | 16 connections | each request |")
    assert row == "| Starlette | Starlette's CORS | -2.5 % | +0.0 % | +3.2 us |"


def test_the_plot_has_a_bar_for_each_number() -> None:
    plot = bars("Cost", {"Starlette": {"ours": 1.0, "<theirs>": 10.0}})
    root = ElementTree.fromstring(plot)
    widths = [float(each.attrib["width"]) for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[1:] == [39.0, 390.0]
