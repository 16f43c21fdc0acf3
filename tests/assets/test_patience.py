"""How long a download goes on: it ends, and not while it gets on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.assets.response import retry_after
from runner.core.retry import LONGEST_WAIT_S, RetryState, retry_wait_s, wait_before_next
from runner.core.settings import RetryPolicy

POLICY = RetryPolicy(attempts=6, base_s=2.0, cap_s=60.0)


@given(st.lists(st.integers(0, 50_000)))
def test_a_download_that_gets_nowhere_ends(reached: list[int]) -> None:
    """Starting over again and again is no headway, however much each time brings."""
    tries = RetryState(furthest_bytes=50_000)
    for reached_bytes in reached:
        tries = retry_wait_s(tries, reached_bytes)

    assert len(reached) == tries.failed


def test_a_download_that_gets_on_never_ends_by_itself() -> None:
    """A file over a bad network arrives as long as each try brings it further."""
    tries = RetryState()
    for n in range(1, 1000):
        tries = retry_wait_s(tries, n * 100_000)

        assert wait_before_next(POLICY, tries, retry_after_s=None, draw=0.9) is not None


@given(
    st.integers(1, 10_000),
    st.none() | st.floats(0, 1e9),
    st.floats(0, 1, exclude_max=True),
)
def test_waits_are_bounded(failed: int, retry_after_s: float | None, draw: float) -> None:
    """No wait is negative, shorter than the server wants, or longer than a quarter of an hour."""
    wait_s = wait_before_next(POLICY, RetryState(failed), retry_after_s=retry_after_s, draw=draw)

    if wait_s is not None:
        assert (retry_after_s or 0) <= wait_s <= max(POLICY.cap_s, LONGEST_WAIT_S)


@given(st.text(max_size=40))
def test_no_retry_after_crashes(text: str) -> None:
    """What a host writes there is a wait or nothing."""
    wait_s = retry_after({"Retry-After": text}, 1_700_000_000.0)

    assert wait_s is None or wait_s >= 0
