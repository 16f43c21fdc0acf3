"""Whose turn it is: nobody starves, no cap is passed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.round_robin import Blocked, Chosen, Limit, ModelQueue, Queue, choose_model

OPEN = Queue(0, 8, 0.0)


@pytest.mark.parametrize(
    ("bound", "until", "run", "lanes"),
    [
        (Limit.NO_JOBS, None, OPEN, [ModelQueue(0, model="a", has_jobs=False)]),
        (Limit.NO_JOBS, None, Queue(8, 8), []),
        (Limit.IN_FLIGHT, None, Queue(8, 8), [ModelQueue(0, model="a")]),
        (Limit.RATE, 9.0, Queue(0, 8, 9.0), [ModelQueue(0, model="a")]),
        (Limit.MODEL_IN_FLIGHT, None, OPEN, [ModelQueue(2, 2, model="a")]),
        (Limit.MODEL_RATE, 7.0, OPEN, [ModelQueue(0, 2, 9.0, model="a"), ModelQueue(0, 2, 7.0, model="b")]),
        (Limit.MODEL_RATE, 7.0, OPEN, [ModelQueue(2, 2, 6.0, model="a"), ModelQueue(0, 2, 7.0, model="b")]),
    ],
)
def test_which_limit_binds(bound, until, run, lanes):
    """
    What holds everything back is named, with the time at which it opens by itself.
    """
    assert Blocked(bound, until) == choose_model(run, lanes, after=None, now=5.0)


def test_models_take_turns():
    """
    Where nothing binds, each model has the same share.
    """
    lanes, after, turns = [ModelQueue(0, model=name) for name in "abc"], None, Counter()
    for _ in range(30):
        turn = choose_model(OPEN, lanes, after=after, now=0.0)
        assert isinstance(turn, Chosen)
        after = turn.model
        turns[after] += 1

    assert turns == {"a": 10, "b": 10, "c": 10}


LANES = st.lists(
    st.builds(
        ModelQueue,
        in_flight=st.integers(0, 3),
        max_in_flight=st.none() | st.integers(1, 3),
        opens_at=st.none() | st.floats(0, 10),
        model=st.text(max_size=3),
        has_jobs=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda lane: lane.model,
)


@given(LANES, st.text(max_size=3), st.floats(0, 10))
def test_a_turn_passes_no_cap_and_is_given_whenever_it_can_be(lanes, after, now):
    """
    A model is chosen exactly when one has a job, a free slot and an open pacer.
    """
    able = {lane.model for lane in lanes if lane.has_jobs and not lane.is_full and lane.is_open(now)}
    turn = choose_model(OPEN, lanes, after=after, now=now)

    assert isinstance(turn, Chosen) == bool(able)
    if isinstance(turn, Chosen):
        assert turn.model in able
