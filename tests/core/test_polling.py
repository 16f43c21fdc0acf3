"""When to poll: within the limits of the manifest, and near the time at which tasks finish."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runner.core.polling import (
    UNKNOWNS_UNTIL_LOST,
    Durations,
    count_unknown,
    next_poll_s,
    poll_backoff_s,
)
from runner.core.settings import PollPolicy

POLICIES = st.builds(
    PollPolicy,
    first_s=st.floats(0, 100),
    interval_s=st.floats(0, 100),
    max_interval_s=st.floats(100, 500),
    timeout_s=st.floats(0, 5000),
)
DRAWS = st.floats(0, 1, exclude_max=True)


@given(
    POLICIES,
    st.integers(0, 3000),
    st.floats(0, 6000),
    DRAWS,
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 500)), max_size=12),
    st.none() | st.floats(0, 3600),
)
def test_waits_are_bounded(
    policy: Any, polls: Any, age_s: Any, draw: Any, seen: Any, poll_after_s: Any
) -> None:
    """
    Learning never stretches a wait past max_interval, and nothing stretches it past the timeout.
    """
    durations = Durations()
    for above_s, more_s in seen:
        durations.add(above_s, above_s + more_s)
    wait_s = next_poll_s(
        policy,
        polls=polls,
        age_s=age_s,
        draw=draw,
        durations=durations,
        poll_after_s=poll_after_s,
    )
    left_s = max(policy.timeout_s - age_s, 0.0)

    assert 0 <= wait_s <= left_s
    assert wait_s <= max(policy.max_interval_s, poll_after_s or 0.0) + 1e-9
    assert wait_s >= min(poll_after_s or 0.0, left_s)
    if polls == 0:
        assert wait_s >= min(max(policy.first_s - age_s, 0.0), left_s)


def test_no_pause_at_all() -> None:
    """
    An interval of 0 is honored, whatever is known of durations.
    """
    policy = PollPolicy(first_s=0.0, interval_s=0.0)

    durations = Durations()
    for _ in range(9):
        durations.add(60.0, 99.0)

    for polls in range(3):
        assert 0.0 == next_poll_s(policy, polls=polls, age_s=0.0, draw=0.9, durations=durations)


def test_intervals_grow() -> None:
    """
    Each wait is longer than the one before, up to the maximum.
    """
    waits = [next_poll_s(PollPolicy(), polls=n, age_s=60.0, draw=0.0) for n in range(1, 12)]

    assert [15.0, 18.75, 23.4375] == waits[:3]
    assert sorted(waits) == waits
    assert 50.0 == waits[-1]


def test_uninformative_polls_back_off() -> None:
    """
    Failures double the wait up to the maximum, and the wait that the server asks for is the minimum.
    """
    policy = PollPolicy(interval_s=10.0, max_interval_s=72.0)

    assert [10, 20, 40, 60, 60] == [poll_backoff_s(policy, failures=n, draw=0.0) for n in (1, 2, 3, 4, 99)]
    assert 300.0 == poll_backoff_s(policy, failures=1, draw=0.0, retry_after_s=300.0)
    assert poll_backoff_s(PollPolicy(interval_s=0.0), failures=1, draw=0.0) > 0


def test_a_young_task_may_be_unknown() -> None:
    """
    A young task is never lost; an old one is after three such answers in a row.
    """
    counted, counts = 0, []
    for age_s in (1, 60, 119, 120, 135, 150):
        counted = count_unknown(counted, age_s=age_s, tolerance_s=120.0)
        counts.append(counted)

    assert [0, 0, 0, 1, 2, UNKNOWNS_UNTIL_LOST] == counts
