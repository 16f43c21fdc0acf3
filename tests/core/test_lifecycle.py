"""The table of states: what it must never allow, and what it must always allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.lifecycle import (
    ENDED,
    TRANSITIONS,
    Event,
    IllegalTransition,
    State,
    advance,
    describe_recovery,
    next_step,
    recovery,
    sources,
)

BY_A_PERSON = frozenset({Event.RERUN, Event.CONFIRMED_NOT_SUBMITTED, Event.WRITTEN_OFF, Event.ATTACHED})
BY_A_REFUSAL = frozenset({Event.NOT_SENT})
MAY_BE_PAID = frozenset(State) - {State.PENDING, State.FAILED}
"""Where a remote task exists, or may exist."""


def reachable(state: State, *, without: frozenset[Event] = frozenset()) -> set[State]:
    """Return the states that events lead to from a state, itself included."""
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
    From every state a job can succeed or fail: no job can be stuck.
    """
    assert reachable(state) & {State.SUCCEEDED, State.FAILED}


def test_post_leaves_only_from_pending() -> None:
    """
    The intent to submit is allowed in one state only, in which nothing was sent.
    """
    assert {State.PENDING} == sources(Event.INTENT)


@pytest.mark.parametrize("state", sorted(MAY_BE_PAID))
def test_what_may_be_paid_is_submitted_again_by_no_event_of_the_program(state: State) -> None:
    """
    From a state that may have a paid task, only a person or a refusal by the API leads back to pending.
    """
    assert State.PENDING not in reachable(state, without=BY_A_PERSON | BY_A_REFUSAL)


@given(st.lists(st.sampled_from([event for event in Event if event not in BY_A_PERSON]), max_size=40))
def test_no_sequence_of_events_submits_twice(events: list[Event]) -> None:
    """
    Whatever happens in whatever order, nothing is submitted after an accepted or uncertain POST unless a person says so.
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
    In whatever state a process dies, the next one has something to do, and never submits what may be paid for.
    """
    event = recovery(state)
    recovered = state if event is None else advance(state, event)

    assert recovered in ENDED or next_step(recovered) is not None
    assert recovered is not State.PENDING or state is State.PENDING
    assert describe_recovery(state)


@pytest.mark.parametrize("state", [state for state in State if state not in ENDED])
def test_bug_of_ours_loses_no_task(state: State) -> None:
    """
    A bug in one job's code ends that job, in a state from which a paid task can still be polled or downloaded.
    """
    after = advance(state, Event.CRASHED)

    assert after in ENDED
    assert after is not State.FAILED or state not in MAY_BE_PAID
