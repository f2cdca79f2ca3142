"""The tables and the plot of docs/explanation/cost.md."""

from __future__ import annotations

from xml.etree import ElementTree

from . import instructions, throughput
from .bars import bars
from .instructions import Counted
from .throughput import Line


def test_the_table_of_the_throughput_names_connections_and_middlewares() -> None:
    line = Line("Starlette", "cors", (0.975, 1.0), 3.25)
    head, _, row = throughput.table([line], (1, 16)).splitlines()
    assert head == ("| framework | middleware | 1 connection | 16 connections | each request |")
    assert row == "| Starlette | Starlette's CORS | -2.5 % | +0.0 % | +3.2 us |"


def test_the_table_of_the_instructions_shows_what_a_middleware_adds() -> None:
    alone = dict.fromkeys(instructions.EVENTS, 1000.0)
    counted = [Counted(alone, 7), Counted(alone, 7), Counted({**alone, "instructions": 1050.0}, 9)]
    lines = instructions.table({"Starlette": counted}).splitlines()
    assert lines[2] == "| Starlette | instructions | 1,000 | 0 | +50 (+5.0 %) |"
    assert lines[-1].endswith(" | 7 | +0 | +2 |")


def test_the_plot_has_a_bar_for_each_number() -> None:
    plot = bars("Cost", {"Starlette": {"ours": 1.0, "<theirs>": 10.0}})
    root = ElementTree.fromstring(plot)
    widths = [float(each.attrib["width"]) for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[1:] == [39.0, 390.0]
