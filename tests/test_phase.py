"""The table of phases: every pair of a phase and an event."""

from __future__ import annotations

import itertools

import pytest

from graceful_asgi.phase import Event, Phase, advance

LEADS = {
    ("serving", "begin"): "lame duck",
    ("lame duck", "resume"): "serving",
    ("lame duck", "close"): "draining",
    ("lame duck", "cancel"): "cancelling",
    ("draining", "cancel"): "cancelling",
    ("draining", "clean up"): "cleanup",
    ("cancelling", "clean up"): "cleanup",
    ("cleanup", "finish"): "stopped",
    ("draining", "restart"): "serving",  # a server was cut off in mid-drain
    ("cancelling", "restart"): "serving",
    ("cleanup", "restart"): "serving",
    ("stopped", "restart"): "serving",
}


@pytest.mark.parametrize(
    ("phase", "event"),
    [
        pytest.param(phase, event, id=f"{phase.value}-{event.value}")
        for phase, event in itertools.product(Phase, Event)
    ],
)
def test_an_event_leads_where_the_design_says_and_nowhere_else(phase: Phase, event: Event) -> None:
    led = advance(phase, event)
    assert (led and led.value) == LEADS.get((phase.value, event.value))


def test_the_design_names_only_phases_and_events_that_exist() -> None:
    for phase, event in LEADS:
        assert advance(Phase(phase), Event(event)) is not None


def test_the_way_from_serving_to_stopped_goes_through_every_phase() -> None:
    phase = Phase.SERVING
    seen = [phase]
    for event in (Event.BEGIN, Event.CLOSE, Event.CANCEL, Event.CLEAN_UP, Event.FINISH):
        led = advance(phase, event)
        assert led is not None
        phase = led
        seen.append(phase)
    assert seen == list(Phase)
