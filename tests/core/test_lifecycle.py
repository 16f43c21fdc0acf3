"""The table of the life of a job: what it must never allow, and what it must always."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.lifecycle import (
    RESTING,
    TRANSITIONS,
    Event,
    State,
    advance,
    describe_recovery,
    next_step,
    recovery,
    sources,
)
from runner.errors import IllegalTransition

BY_A_PERSON = frozenset({Event.RERUN, Event.CONFIRMED_NOT_SUBMITTED, Event.WRITTEN_OFF, Event.ATTACHED})
REFUSED = frozenset({Event.NOT_SENT})


def reachable(state: State, *, without: frozenset[Event] = frozenset()) -> set[State]:
    """Follow the arrows from a state."""
    found, todo = {state}, [state]
    while todo:
        for event, target in TRANSITIONS[todo.pop()].items():
            if event not in without and target not in found:
                found.add(target)
                todo.append(target)
    return found


@pytest.mark.parametrize("state", State)
def test_every_state_can_finish(state: State) -> None:
    """
    From anywhere there is a way to a final state: no job can be stuck.
    """
    assert any(target.is_final for target in reachable(state))


def test_post_leaves_only_from_pending() -> None:
    """
    The intent to submit is allowed in one state alone, the one in which nothing was sent.
    """
    assert {State.PENDING} == sources(Event.INTENT)


@pytest.mark.parametrize("state", [state for state in State if state.may_be_paid])
def test_what_may_be_paid_is_submitted_again_by_no_event_of_the_program(state: State) -> None:
    """
    From a state that may have a paid task, only a person's word or the API's refusal leads back to pending.
    """
    assert State.PENDING not in reachable(state, without=BY_A_PERSON | REFUSED)


@given(st.lists(st.sampled_from([event for event in Event if event not in BY_A_PERSON]), max_size=40))
def test_no_sequence_of_events_submits_twice(events: list[Event]) -> None:
    """
    Whatever happens in whatever order, an accepted or doubtful POST is the last one without a person's word.
    """
    state, charged = State.PENDING, 0
    for event in events:
        if event not in TRANSITIONS[state]:
            with pytest.raises(IllegalTransition):
                advance(state, event)
            continue
        state = advance(state, event)
        charged += event in (Event.ACCEPTED, Event.OUTCOME_UNKNOWN)

    assert charged <= 1


@pytest.mark.parametrize("state", State)
def test_crash_leaves_a_state_that_a_later_run_can_act_on(state: State) -> None:
    """
    Wherever a process dies, the next one knows what to do, and never to submit what may be paid.
    """
    event = recovery(state)
    found = state if event is None else advance(state, event)

    assert found in RESTING or next_step(found) is not None
    assert found is not State.PENDING or state is State.PENDING
    assert describe_recovery(state)


@pytest.mark.parametrize("state", [state for state in State if state not in RESTING])
def test_bug_of_ours_loses_no_task(state: State) -> None:
    """
    A bug in one job's code ends that job, and leaves it where a paid task is still polled or fetched.
    """
    after = advance(state, Event.CRASHED)

    assert after in RESTING
    assert after is not State.FAILED or not state.may_be_paid
