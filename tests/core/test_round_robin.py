"""Which model is next: none starves, and no limit is exceeded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.governor import Blocked, Limit, ModelQueue, RunGovernor, choose_model
from runner.core.settings import Limits


@pytest.mark.parametrize(
    ("limit", "until", "queues", "opens_at"),
    [
        (Limit.NO_JOBS, None, [ModelQueue("a", 0, has_jobs=False)], 0.0),
        (Limit.RATE, 9.0, [ModelQueue("a", 0)], 9.0),
        (Limit.MODEL_IN_FLIGHT, None, [ModelQueue("a", 2, 2)], 0.0),
        (Limit.MODEL_RATE, 7.0, [ModelQueue("slow", 0, 2), ModelQueue("b", 0, 2)], 0.0),
        (Limit.MODEL_RATE, 7.0, [ModelQueue("c", 2, 2), ModelQueue("b", 0, 2)], 0.0),
    ],
)
def test_which_limit_blocks(limit: Any, until: float | None, queues: Any, opens_at: float) -> None:
    """
    The limit that blocks all models is named, with the time at which that ends without any event.
    """
    models_open_at = {"slow": 9.0, "b": 7.0, "c": 6.0}
    choice = choose_model(queues, after=None, now=5.0, opens_at=opens_at, models_open_at=models_open_at)

    assert Blocked(limit, until) == choice


def test_a_full_run_looks_at_no_model() -> None:
    """
    Whatever its models may do, nothing is submitted while no further task may exist.
    """
    governor = RunGovernor(Limits(), learned={}, stall_s=60.0)

    assert Blocked(Limit.IN_FLIGHT) == governor.choose([ModelQueue("a", 0)], free=0, after=None, now=0.0)
    assert "a" == governor.choose([ModelQueue("a", 0)], free=1, after=None, now=0.0)


def test_models_take_turns() -> None:
    """
    Without limits, each model has the same share.
    """
    queues, after = [ModelQueue(name, 0) for name in "abc"], None
    chosen: Counter[str | None] = Counter()
    for _ in range(30):
        choice = choose_model(queues, after=after, now=0.0, opens_at=0.0)
        assert not isinstance(choice, Blocked)
        after = choice
        chosen[after] += 1

    assert {"a": 10, "b": 10, "c": 10} == chosen


QUEUES = st.lists(
    st.builds(
        ModelQueue,
        in_flight=st.integers(0, 3),
        max_in_flight=st.none() | st.integers(1, 3),
        model=st.text(max_size=3),
        has_jobs=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda queue: queue.model,
)


@given(QUEUES, st.text(max_size=3), st.floats(0, 10), st.data())
def test_a_model_is_chosen_if_and_only_if_one_may(queues: Any, after: Any, now: Any, data: Any) -> None:
    """
    A model is chosen exactly when one has a job, a free slot and an open pacer.
    """
    names = [queue.model for queue in queues]
    times = data.draw(st.dictionaries(st.sampled_from(names), st.floats(0, 10)) if names else st.just({}))
    free = {queue.model for queue in queues if queue.has_jobs and not queue.is_full}
    allowed = {model for model in free if times.get(model, 0.0) <= now}
    choice = choose_model(queues, after=after, now=now, opens_at=0.0, models_open_at=times)

    assert bool(allowed) != isinstance(choice, Blocked)
    if allowed:
        assert choice in allowed
