"""Whether to try again: bounds of the arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.retry import GiveUp, decide
from runner.core.settings import RetryPolicy

POLICIES = st.builds(
    RetryPolicy, attempts=st.integers(1, 2000), base_s=st.floats(0, 100), cap_s=st.floats(0, 1000)
)


@given(POLICIES, st.integers(1, 2000), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 3600))
def test_waits_are_bounded(policy, attempt, draw, retry_after_s):
    """
    A wait is never negative, never past the cap unless the server says so, and never shorter than it says.
    """
    decision = decide(policy, attempt=attempt, draw=draw, retry_after_s=retry_after_s)

    if attempt >= policy.attempts:
        assert decision == GiveUp()
    else:
        floor = retry_after_s or 0.0
        assert floor <= decision.after_s <= max(policy.cap_s, floor)
