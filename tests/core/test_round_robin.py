"""Whose turn it is: nobody starves, no cap is passed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.round_robin import Blocked, Bound, Lane, ModelLane, Turn, choose

OPEN = Lane(0, 8, 0.0)


@pytest.mark.parametrize(
    ("bound", "until", "run", "lanes"),
    [
        (Bound.NO_JOBS, None, OPEN, [ModelLane(0, model="a", has_jobs=False)]),
        (Bound.NO_JOBS, None, Lane(8, 8), []),
        (Bound.IN_FLIGHT, None, Lane(8, 8), [ModelLane(0, model="a")]),
        (Bound.RATE, 9.0, Lane(0, 8, 9.0), [ModelLane(0, model="a")]),
        (Bound.MODEL_IN_FLIGHT, None, OPEN, [ModelLane(2, 2, model="a")]),
        (Bound.MODEL_RATE, 7.0, OPEN, [ModelLane(0, 2, 9.0, model="a"), ModelLane(0, 2, 7.0, model="b")]),
        (Bound.MODEL_RATE, 7.0, OPEN, [ModelLane(2, 2, 6.0, model="a"), ModelLane(0, 2, 7.0, model="b")]),
    ],
)
def test_which_limit_binds(bound, until, run, lanes):
    """
    What holds everything back is named, with the time at which it opens by itself.
    """
    assert Blocked(bound, until) == choose(run, lanes, after=None, now=5.0)


def test_models_take_turns():
    """
    Where nothing binds, each model has the same share.
    """
    lanes, after, turns = [ModelLane(0, model=name) for name in "abc"], None, Counter()
    for _ in range(30):
        turn = choose(OPEN, lanes, after=after, now=0.0)
        assert isinstance(turn, Turn)
        after = turn.model
        turns[after] += 1

    assert turns == {"a": 10, "b": 10, "c": 10}


LANES = st.lists(
    st.builds(
        ModelLane,
        in_flight=st.integers(0, 3),
        most_in_flight=st.none() | st.integers(1, 3),
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
    turn = choose(OPEN, lanes, after=after, now=now)

    assert isinstance(turn, Turn) == bool(able)
    if isinstance(turn, Turn):
        assert turn.model in able
