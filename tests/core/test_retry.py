"""Whether to try again, and after how long: every wait is bounded, and every series of tries ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.retry import MAX_DOWNLOAD_WAIT_S, DownloadTries, backoff_s, retry_wait_s
from runner.core.settings import RetryPolicy

POLICIES = st.builds(
    RetryPolicy, attempts=st.integers(1, 2000), base_s=st.floats(0, 100), cap_s=st.floats(0, 1000)
)
POLICY = RetryPolicy(attempts=6, base_s=2.0, cap_s=60.0)
DRAWS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("failures", "expected"), [(1, 5.0), (2, 10.0), (4, 40.0), (5, 60.0), (10**6, 60.0)])
def test_backoff_doubles_up_to_its_cap(failures: int, expected: float) -> None:
    """
    Each failure in a row doubles the wait; no number of failures takes it past the cap, or overflows.
    """
    assert expected == backoff_s(5.0, 60.0, failures)


@given(POLICIES, st.integers(1, 2000), DRAWS, st.none() | st.floats(0, 3600))
def test_waits_are_bounded(
    policy: RetryPolicy, attempt: int, draw: float, retry_after_s: float | None
) -> None:
    """
    A wait is never negative, never past the cap unless the server asks for it, and never shorter than it asks.
    """
    wait_s = retry_wait_s(policy, attempt=attempt, draw=draw, retry_after_s=retry_after_s)

    assert (wait_s is None) == (attempt >= policy.attempts)
    if wait_s is not None:
        minimum_s = retry_after_s or 0.0
        assert minimum_s <= wait_s <= max(policy.cap_s, minimum_s)


@given(st.lists(st.integers(0, 50_000)))
def test_a_download_without_progress_ends(sizes: list[int]) -> None:
    """
    Starting over again and again is no progress, however much each try brings.
    """
    tries = DownloadTries(furthest_bytes=50_000)
    for size in sizes:
        tries = tries.add_failure(size)

    assert len(sizes) == tries.failed


def test_a_download_that_makes_progress_does_not_end() -> None:
    """
    A file over a bad network arrives as long as each try brings it further.
    """
    tries = DownloadTries()
    for n in range(1, 1000):
        tries = tries.add_failure(n * 100_000)

        assert tries.wait_s(POLICY, draw=0.9, retry_after_s=None) is not None


@given(st.integers(1, 8), st.none() | st.floats(0, 3600), DRAWS)
def test_waits_of_downloads_are_bounded(failed: int, retry_after_s: float | None, draw: float) -> None:
    """
    No wait of a download is shorter than the server asks for, or longer than a quarter of an hour.
    """
    wait_s = DownloadTries(failed).wait_s(POLICY, draw=draw, retry_after_s=retry_after_s)

    assert (wait_s is None) == (failed >= POLICY.attempts or (retry_after_s or 0) > MAX_DOWNLOAD_WAIT_S)
    if wait_s is not None:
        assert (retry_after_s or 0) <= wait_s <= max(POLICY.cap_s, MAX_DOWNLOAD_WAIT_S)
