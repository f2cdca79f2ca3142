"""The drain as a value: every phase meets every event, in any order, and the history is folded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful_asgi import DrainPolicy, Phase
from graceful_asgi._core.drain import (
    Adopt,
    Begin,
    Drain,
    Event,
    History,
    HistoryEntry,
    Step,
    Stop,
    step,
)

POLICY = DrainPolicy(
    lame_duck_period=5, grace_period=15, cancel_period=2, cleanup_period=3, quiet_period=None
)
OTHER = DrainPolicy(lame_duck_period=1)
NOW = 100.0

BEGIN, STOP, STOP_NOW = Begin("begin"), Stop("stop"), Stop("stop now", lame_duck=False)
EVENTS: list[Event] = [BEGIN, STOP, STOP_NOW, Adopt(OTHER), *Step]

SERVING = Drain(policy=POLICY)
HELD = step(SERVING, BEGIN, NOW)
PATHS: dict[str, Drain] = {"serving": SERVING, "held": HELD, "stopping": step(HELD, STOP, NOW)}
PATHS["draining"] = step(PATHS["stopping"], Step.CLOSE, NOW)
PATHS["cancelling"] = step(PATHS["draining"], Step.CANCEL, NOW)
PATHS["cleanup"] = step(PATHS["cancelling"], Step.CLEAN_UP, NOW)
PATHS["stopped"] = step(PATHS["cleanup"], Step.FINISH, NOW)
PATHS["held, cancelled"] = step(HELD, Step.CANCEL, NOW)

LEADS = {
    ("serving", BEGIN): Phase.LAME_DUCK,
    ("serving", STOP): Phase.LAME_DUCK,
    ("serving", STOP_NOW): Phase.LAME_DUCK,
    ("held", Step.RESUME): Phase.SERVING,
    ("held", Step.CLOSE): Phase.DRAINING,
    ("held", Step.CANCEL): Phase.CANCELLING,
    ("stopping", Step.CLOSE): Phase.DRAINING,
    ("stopping", Step.CANCEL): Phase.CANCELLING,
    ("draining", Step.CANCEL): Phase.CANCELLING,
    ("draining", Step.CLEAN_UP): Phase.CLEANUP,
    ("draining", Step.RESTART): Phase.SERVING,
    ("cancelling", Step.CLEAN_UP): Phase.CLEANUP,
    ("cancelling", Step.RESTART): Phase.SERVING,
    ("held, cancelled", Step.CLEAN_UP): Phase.CLEANUP,
    ("held, cancelled", Step.RESTART): Phase.SERVING,
    ("cleanup", Step.FINISH): Phase.STOPPED,
    ("cleanup", Step.RESTART): Phase.SERVING,
    ("stopped", Step.RESTART): Phase.SERVING,
}
"""Each pair of a drain and an event that leads to another phase. No other pair does."""

CHANGES = {
    ("serving", Adopt(OTHER)),
    ("stopped", Adopt(OTHER)),
    ("cleanup", Adopt(OTHER)),
    ("cancelling", Adopt(OTHER)),
    ("held, cancelled", Adopt(OTHER)),
    ("held", STOP),
    ("held", STOP_NOW),
    ("held", Step.END_LAME_DUCK),
    ("held, cancelled", STOP),
    ("held, cancelled", STOP_NOW),
    ("stopping", Step.END_LAME_DUCK),
}
"""Each pair that changes the drain, and not its phase."""


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("start", PATHS)
def test_every_event_in_every_phase_does_what_the_table_says(start: str, event: Event) -> None:
    before = PATHS[start]
    after = step(before, event, NOW)
    assert after.phase is LEADS.get((start, event), before.phase)
    changed = (start, event) in LEADS or (start, event) in CHANGES
    assert (after is not before) == changed, "the very same object, where nothing has changed"


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (Step.CLOSE, POLICY.grace_period),
        (Step.CANCEL, POLICY.cancel_period),
        (Step.CLEAN_UP, POLICY.cleanup_period),
    ],
)
def test_each_phase_has_its_period_from_where_it_begins(event: Step, left: float) -> None:
    drain = PATHS["draining"] if event is Step.CLEAN_UP else PATHS["stopping"]
    assert step(drain, event, NOW + 1).phase_left(NOW + 1) == left


def test_a_stop_without_a_lame_duck_leaves_none_of_it() -> None:
    assert step(SERVING, STOP_NOW, NOW).phase_left(NOW) == 0.0


def test_a_drain_is_held_from_its_beginning_to_a_stop_or_the_end_of_the_lame_duck() -> None:
    assert [name for name, drain in PATHS.items() if drain.held] == ["held"]
    assert not step(HELD, Step.RESUME, NOW).held


def test_a_held_drain_has_no_end_of_its_own() -> None:
    assert HELD.phase_left(NOW) == math.inf
    assert HELD.time_left(NOW) == math.inf


@pytest.mark.parametrize("who", [BEGIN, BEGIN._replace(resume_after=None)])
def test_whoever_begins_for_good_keeps_the_drain_for_good(who: Begin) -> None:
    drain = step(SERVING, Begin("endpoint", resume_after=1), NOW)
    assert step(step(drain, who, NOW), Step.UNDO, NOW + 1000).phase is Phase.LAME_DUCK


def test_a_drain_is_undone_at_the_latest_of_all_times() -> None:
    drain = step(SERVING, Begin("first", resume_after=10), NOW)
    drain = step(drain, Begin("second", resume_after=1), NOW)
    assert drain.undo_at == NOW + 10
    drain = step(drain, Begin("third", resume_after=20), NOW)
    assert step(drain, Step.UNDO, NOW + 19) is drain
    assert step(drain, Step.UNDO, NOW + 20).phase is Phase.SERVING


def test_a_drain_that_a_stop_has_followed_is_never_undone() -> None:
    drain = step(step(SERVING, Begin("endpoint", resume_after=1), NOW), STOP, NOW)
    assert step(drain, Begin("late", resume_after=1), NOW) is drain
    assert step(drain, Step.UNDO, NOW + 1000) is drain


# Any order

events = st.one_of(
    st.builds(
        Begin,
        st.sampled_from(["a", "b"]),
        st.booleans(),
        st.one_of(st.none(), st.floats(0, 50)),
    ),
    st.builds(Stop, st.sampled_from(["x", "y"]), st.booleans(), st.booleans()),
    st.sampled_from(list(Step)),
)
moments = st.lists(st.tuples(st.floats(0, 20), events), max_size=30)

ORDER = list(Phase)


@given(moments)
def test_in_any_order_what_has_to_hold_holds(story: list[tuple[float, Event]]) -> None:
    drain, now = SERVING, 0.0
    for passed, event in story:
        now += passed
        before, drain = drain, step(drain, event, now)
        if drain.phase is not Phase.SERVING:
            assert drain.reason, "whoever began it is known"
            assert drain.began <= now
        if before.stopping and event is not Step.RESTART:
            assert drain.stopping, "a stop is never taken back"
            assert ORDER.index(drain.phase) >= ORDER.index(before.phase)
        if drain.stopping:
            assert 0 <= drain.time_left(now) <= POLICY.lame_duck_period + POLICY.grace_period
            assert drain.whole_time_left(now) <= POLICY.total_period
            assert drain.undo_at == math.inf
        assert drain.number >= before.number
        assert step(drain, event, now) is drain or event is Step.RESUME or _begins(event), (
            "the same event again changes nothing"
        )


def _begins(event: Event) -> bool:
    return isinstance(event, Begin)  # with a later time, it puts the undoing off


@given(moments)
def test_a_history_folds_to_what_the_events_lead_to(story: list[tuple[float, Event]]) -> None:
    history, drain, now, changes = History(POLICY), SERVING, 0.0, []
    for passed, event in story:
        now += passed
        change = history.add(HistoryEntry(event, now, 0))
        before, drain = drain, step(drain, event, now)
        assert history.drain() == drain
        assert (change is None) == (drain is before)
        if change is not None:
            assert (change.before, change.after) == (before, drain)
            changes.append(change)
    assert len(history) == len(changes)
    told = [history.change(index) for index in range(len(history))]
    assert [change.after for change in told] == [change.after for change in changes]
    if told:  # asked again from the start, by whoever is late
        assert history.change(0).after == changes[0].after


def test_of_two_that_append_at_once_the_second_learns_that_it_came_too_late() -> None:
    history = History(POLICY)
    late = HistoryEntry(Stop("late"), NOW, 0)
    history.add(HistoryEntry(Stop("first"), NOW, 0))
    history._entries.append(late)  # its caller looked before the first one had appended
    change = history.change(1)
    assert change.entry is late
    assert change.after is change.before
    assert history.drain().stopped_by == "first"
